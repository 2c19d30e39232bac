//! The life-cycle of a session, as one table.
//!
//! [`transition`] is that table: the only place that says what may follow what, for every protocol. The
//! drawing in `docs/SESSIONS.md` is [`diagram`], made from it.

use std::fmt::Write as _;

/// What the life-cycle says about `trigger` in `from`; `None` is a session that is not yet open.
///
/// Three kinds of verdict may arrive when the session has moved on since the question was asked
/// (`Authorized`, `Denied`) or has ended twice (`Closed`: the peer went while we were closing it). Those are
/// harmless and therefore repeats, not defects.
#[must_use]
pub const fn transition(from: Option<State>, trigger: Trigger) -> Transition {
    use State::{Establishing, Finished, Running, Stalling};
    use Transition::{Illegal, Repeat, Stay, To};
    use Trigger::{Altered, Authorized, Closed, Denied, Opened, Overflowed, Recovered, Stalled, Started, Updated};

    match (from, trigger) {
        (None, Opened) => To(Establishing),

        (Some(Establishing), Started) | (Some(Stalling), Recovered) => To(Running),
        (Some(Running), Stalled) => To(Stalling),
        (Some(Establishing | Running | Stalling), Closed) => To(Finished),

        (Some(Establishing | Running), Authorized)
        | (Some(Establishing | Running | Stalling), Denied)
        | (Some(Running), Updated | Altered | Overflowed) => Stay,

        (Some(Running), Started | Recovered)
        | (Some(Stalling), Started | Stalled | Authorized)
        | (Some(Finished), Authorized | Denied | Closed) => Repeat,

        (None, Authorized | Started | Updated | Altered | Overflowed | Stalled | Recovered | Denied | Closed)
        | (Some(Establishing), Opened | Updated | Altered | Overflowed | Stalled | Recovered)
        | (Some(Running), Opened)
        | (Some(Stalling), Opened | Updated | Altered | Overflowed)
        | (Some(Finished), Opened | Started | Updated | Altered | Overflowed | Stalled | Recovered) => Illegal,
    }
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Opened; may still be waiting for a verdict or for first media.
    Establishing,
    /// Media flows.
    Running,
    /// Media should flow and does not.
    Stalling,
    /// Closed. Nothing follows.
    Finished,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 4] = [Self::Establishing, Self::Running, Self::Stalling, Self::Finished];

    /// The name used in APIs, logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Establishing => "establishing",
            Self::Running => "running",
            Self::Stalling => "stalling",
            Self::Finished => "finished",
        }
    }
}

/// What moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// First contact led to a request.
    Opened,
    /// The verdict was yes.
    Authorized,
    /// First frame of a source; threshold of delivered bytes for a sink.
    Started,
    /// Periodic report.
    Updated,
    /// Bitrate or media changed.
    Altered,
    /// The cursor fell out of the window.
    Overflowed,
    /// Media stopped.
    Stalled,
    /// Media came back.
    Recovered,
    /// The verdict was no.
    Denied,
    /// The end.
    Closed,
}

impl Trigger {
    /// Every trigger, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Opened,
        Self::Authorized,
        Self::Started,
        Self::Updated,
        Self::Altered,
        Self::Overflowed,
        Self::Stalled,
        Self::Recovered,
        Self::Denied,
        Self::Closed,
    ];

    /// The name used in events and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Authorized => "authorized",
            Self::Started => "started",
            Self::Updated => "updated",
            Self::Altered => "altered",
            Self::Overflowed => "overflowed",
            Self::Stalled => "stalled",
            Self::Recovered => "recovered",
            Self::Denied => "denied",
            Self::Closed => "closed",
        }
    }
}

/// What the table says about a trigger in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Go there.
    To(State),
    /// Legal and without effect on the state.
    Stay,
    /// A harmless repeat: nothing happens and nothing is reported.
    Repeat,
    /// A defect of the caller.
    Illegal,
}

/// The life-cycle as a Mermaid state diagram: one arrow for each pair of states, labelled with every trigger
/// that is reported on the way. Repeats and illegal triggers are no arrows.
#[must_use]
pub fn diagram() -> String {
    let mut out = String::from("stateDiagram-v2\n");
    for from in std::iter::once(None).chain(State::ALL.map(Some)) {
        for to in State::ALL {
            let mut separator = " : ";
            for trigger in Trigger::ALL {
                let target = match transition(from, trigger) {
                    Transition::To(state) => Some(state),
                    Transition::Stay => from,
                    Transition::Repeat | Transition::Illegal => None,
                };
                if target != Some(to) {
                    continue;
                }
                if separator == " : " {
                    let _ = write!(out, "    {} --> {}", node(from), node(Some(to)));
                }
                let _ = write!(out, "{separator}{}", trigger.as_str());
                separator = ", ";
            }
            if separator == ", " {
                out.push('\n');
            }
        }
    }
    let _ = writeln!(out, "    {} --> [*]", node(Some(State::Finished)));
    out
}

/// How the diagram names a state; `[*]` is Mermaid's name for the beginning and the end.
const fn node(state: Option<State>) -> &'static str {
    match state {
        None => "[*]",
        Some(State::Establishing) => "Establishing",
        Some(State::Running) => "Running",
        Some(State::Stalling) => "Stalling",
        Some(State::Finished) => "Finished",
    }
}
