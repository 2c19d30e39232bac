//! The log as a consumer of the event bus: one line for each thing worth reading.
//!
//! Fields are those of `robustness.md` §10.5; every line about a session carries its id as `sid`. The message
//! is the event's name. Sessions opening and closing are `info`, what happens in between is `debug`.

use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use crate::admission::LoadState;
use crate::control::Handle;
use crate::event::{Attempt, Event, ServerWhat, StreamEvent, StreamWhat, Wanted};
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
        let (missed, recorded) = handle.next_happened(&mut cursor).await;
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
                ServerWhat::Load(state) if state == LoadState::Green => info!(state = state.as_str(), "load_state"),
                ServerWhat::Load(state) => warn!(state = state.as_str(), "load_state"),
                ServerWhat::Ledger(true) => info!("ledger_recovered"),
                ServerWhat::Ledger(false) => error!("ledger_degraded"),
                ServerWhat::ClockStep { by_ms } => warn!(by_ms, "clock_step"),
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
            let Wanted { connection, app, stream } = &attempt.wanted;
            info!(
                cid = connection.map(|connection| connection.to_string()),
                proto = attempt.protocol.as_str(),
                role = attempt.kind.map(crate::names::Kind::as_str),
                app = app.as_deref().map(clip),
                stream = stream.as_deref().map(clip),
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
        StreamWhat::Offline { publisher, reason: CloseReason { reason, .. } } => {
            info!(sid = %publisher, vhost, app, stream, reason = reason.as_str(), "stream_offline");
        }
    }
}

/// At most [`TEXT_BYTES_MAX`] bytes. Control characters cannot occur: these texts passed the name validator.
fn clip(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::control::testing::{facts, id, key};
    use crate::event::ServerEvent;
    use crate::names::{Kind, Protocol, ShardId};
    use crate::session::Reason;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn written(events: &[Event]) -> Vec<serde_json::Value> {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut log = Log::default();
            for event in events {
                log.write(event);
            }
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_line_about_a_session_carries_its_id_and_the_last_its_account() {
        let mut who = facts(1, 3, Kind::Play, "live/cam", "192.0.2.1:1000");
        who.user = Some("ann".into());
        let who = Arc::new(who);
        let closed = Counters { rx_bytes: 10, tx_bytes: 2_000, ..Counters::default() };
        let reason = CloseReason::with(Reason::LimitExceeded, "api.page");
        let all = [
            What::Opened,
            What::Authorized,
            What::Started,
            What::Updated(Counters::default()),
            What::Altered,
            What::Overflowed { dropped_frames: 3 },
            What::Stalled,
            What::Recovered,
            What::Denied(reason),
            What::Closed(reason, closed),
        ];
        let at = who.opened_at + Duration::from_millis(1_500);
        let events = all.map(|what| Event::Session(Change { facts: who.clone(), seq: 0, at, what }));
        let lines = written(&events);
        assert_eq!(lines.len(), events.len());
        for line in &lines {
            assert_eq!(line["sid"], id(1).to_string(), "{line}");
            assert_eq!((&line["role"], &line["proto"], &line["worker"]), (&"play".into(), &"rtmp".into(), &3.into()));
            assert_eq!((&line["app"], &line["stream"], &line["user"]), (&"live".into(), &"cam".into(), &"ann".into()));
        }
        let last = lines.last().unwrap();
        assert_eq!((&last["message"], &last["level"]), (&"session_closed".into(), &"INFO".into()));
        assert_eq!((&last["reason"], &last["detail"]), (&"limit_exceeded".into(), &"api.page".into()));
        assert_eq!(
            (&last["bytes_in"], &last["bytes_out"], &last["dur_ms"]),
            (&10.into(), &2_000.into(), &1_500.into())
        );
        assert_eq!(last["peer"], "192.0.2.1:1000");
        assert_eq!(lines[3]["level"], "DEBUG");
    }

    #[test]
    fn a_flood_of_attempts_is_summarised() {
        let start = Instant::now();
        let attempt = |at_ms| {
            Event::Attempt(Attempt {
                protocol: Protocol::Rtmp,
                kind: None,
                remote: "192.0.2.1:1".parse().unwrap(),
                at: start + Duration::from_millis(at_ms),
                reason: Reason::HandshakeTimeout.into(),
                wanted: Wanted::default(),
            })
        };
        let events: Vec<_> = (0..500).map(attempt).chain([attempt(1_000)]).collect();
        let lines = written(&events);
        assert_eq!(lines.len(), 12, "ten, the summary, and the first of the next second");
        assert_eq!((&lines[10]["message"], &lines[10]["withheld"]), (&"attempts_summarised".into(), &490.into()));
        assert_eq!(lines[11]["reason"], "handshake_timeout");
    }

    #[test]
    fn an_attempt_says_where_it_went_as_far_as_that_was_known() {
        let attempt = |wanted| {
            Event::Attempt(Attempt {
                protocol: Protocol::Rtmp,
                kind: Some(Kind::Play),
                remote: "192.0.2.1:1".parse().unwrap(),
                at: Instant::now(),
                reason: Reason::Banned.into(),
                wanted,
            })
        };
        let connection = Some(crate::names::ConnectionId::new(ShardId(1), 7));
        let known = Wanted { connection, app: Some("live".into()), stream: Some("cam".into()) };
        let lines = written(&[attempt(known), attempt(Wanted::default())]);
        assert_eq!(
            (&lines[0]["cid"], &lines[0]["app"], &lines[0]["stream"]),
            (&"1-7".into(), &"live".into(), &"cam".into())
        );
        assert!(lines[1].get("cid").is_none() && lines[1].get("app").is_none(), "{}", lines[1]);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let name = "\u{e9}".repeat(250);
        let at = Instant::now();
        let what = StreamWhat::Online { publisher: id(1), shard: ShardId(0), resumed: false };
        let stream = Event::Stream(StreamEvent { key: key(&format!("live/{name}")), at, what });
        let lines = written(&[stream, Event::Server(ServerEvent { at, what: ServerWhat::Ready })]);
        assert_eq!(lines[0]["stream"].as_str().unwrap().len(), 256);
        assert_eq!(lines[1]["message"], "server_ready");
    }
}
