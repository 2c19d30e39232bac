//! The log as a consumer of the event bus: one line for each thing worth reading.
//!
//! Fields are those of `robustness.md` §10.5; every line about a session carries its id as `sid`. The message
//! is the event's name. Sessions opening and closing are `info`, what happens in between is `debug`.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::control::Handle;
use crate::event::{Attempt, Event, ServerWhat, StreamEvent, StreamWhat};
use crate::session::{Change, CloseReason, Counters, What};

/// Attempts written in a second; the rest of that second is one line with their number.
const ATTEMPTS_PER_SECOND: u32 = 10;
/// Lines written before other tasks may run.
const LINES_PER_TURN: u32 = 256;
/// The longest text taken from a peer, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// Writes events from now on, for ever: spawn it on control's runtime and drop it at the end.
pub async fn run(handle: Handle) {
    let mut log = Log::default();
    let mut cursor = handle.subscribe(None);
    let mut lines = 0u32;
    loop {
        let (missed, recorded) = handle.next_event(&mut cursor).await;
        if missed > 0 {
            warn!(missed, "events_missed");
        }
        log.write(&recorded.event);
        lines += 1;
        if lines.is_multiple_of(LINES_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
}

/// What is remembered between lines: how many attempts this second has had.
#[derive(Debug, Default)]
pub struct Log {
    second: Option<Instant>,
    attempts: u32,
}

impl Log {
    /// Writes one event.
    pub fn write(&mut self, event: &Event) {
        match event {
            Event::Session(change) => session(change),
            Event::Stream(event) => stream(event),
            Event::Attempt(attempt) => self.attempt(attempt),
            Event::Server(event) => match event.what {
                ServerWhat::Ready => info!("server_ready"),
                ServerWhat::Draining => info!("server_draining"),
            },
        }
    }

    fn attempt(&mut self, attempt: &Attempt) {
        let over =
            self.second.is_none_or(|second| attempt.at.saturating_duration_since(second) >= Duration::from_secs(1));
        if over {
            let withheld = self.attempts.saturating_sub(ATTEMPTS_PER_SECOND);
            if withheld > 0 {
                warn!(withheld, "attempts_summarised");
            }
            self.second = Some(attempt.at);
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        if self.attempts <= ATTEMPTS_PER_SECOND {
            let CloseReason { reason, detail } = attempt.reason;
            info!(
                proto = attempt.protocol.as_str(),
                role = attempt.kind.map(crate::names::Kind::as_str),
                peer = %attempt.remote,
                reason = reason.as_str(),
                detail,
                "attempt"
            );
        }
    }
}

/// One line about a session, with the fields that all of them have and those of its own.
macro_rules! line {
    ($level:ident, $change:expr, $($field:tt)*) => {{
        let facts = &$change.facts;
        $level!(
            sid = %facts.id,
            cid = %facts.connection,
            proto = facts.protocol.as_str(),
            role = facts.kind.as_str(),
            app = clip(facts.key.app()),
            stream = clip(facts.key.stream()),
            user = facts.user.as_deref().map(clip),
            peer = %facts.remote,
            worker = facts.shard.0,
            $($field)*
        )
    }};
}

fn session(change: &Change) {
    match change.what {
        What::Opened => line!(info, change, vhost = clip(change.facts.key.vhost()), "session_opened"),
        What::Authorized => line!(debug, change, "session_authorized"),
        What::Started => line!(debug, change, "session_started"),
        What::Updated(counters) => {
            let Counters { rx_bytes, tx_bytes, .. } = counters;
            line!(debug, change, bytes_in = rx_bytes, bytes_out = tx_bytes, "session_updated");
        }
        What::Altered => line!(debug, change, "session_altered"),
        What::Overflowed { dropped_frames } => line!(debug, change, dropped_frames, "session_overflowed"),
        What::Stalled => line!(debug, change, "session_stalled"),
        What::Recovered => line!(debug, change, "session_recovered"),
        What::Denied(CloseReason { reason, detail }) => {
            line!(info, change, reason = reason.as_str(), detail, "session_denied");
        }
        What::Closed(CloseReason { reason, detail }, Counters { rx_bytes, tx_bytes, dropped_frames, .. }) => {
            let lasted = change.at.saturating_duration_since(change.facts.opened_at);
            let dur_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
            line!(
                info,
                change,
                reason = reason.as_str(),
                detail,
                side = reason.side().as_str(),
                bytes_in = rx_bytes,
                bytes_out = tx_bytes,
                dropped_frames,
                dur_ms,
                "session_closed"
            );
        }
    }
}

fn stream(event: &StreamEvent) {
    let (vhost, app, stream) = (clip(event.key.vhost()), clip(event.key.app()), clip(event.key.stream()));
    match event.what {
        StreamWhat::Online { publisher, shard, resumed } => {
            info!(sid = %publisher, vhost, app, stream, worker = shard.0, resumed, "stream_online");
        }
        StreamWhat::Idle => debug!(vhost, app, stream, "stream_idle"),
        StreamWhat::Offline => info!(vhost, app, stream, "stream_offline"),
    }
}

/// At most [`TEXT_BYTES_MAX`] bytes. Control characters cannot occur: these texts passed the name validator.
fn clip(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text)
}
