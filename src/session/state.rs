//! The life-cycle of a session, as one table.

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

/// What moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
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
