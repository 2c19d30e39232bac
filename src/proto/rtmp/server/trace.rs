//! What a connection said last, for the report of what went wrong with it.

use std::fmt;
use std::time::Instant;

use crate::proto::rtmp::glitch::Glitch;
use crate::proto::rtmp::message::type_id;

/// The newest events of a connection, oldest first: types, sizes and times, none of the peer's bytes. It grows with what
/// the peer says, up to 64 events of 16 bytes; nothing is written here when media goes out.
#[derive(Clone, Debug)]
pub struct Trace {
    began_at: Instant,
    events: Vec<Event>,
    /// Where the next event goes once the ring is full.
    next: usize,
    /// Events that others took the place of.
    lost: u64,
}

/// Events that are kept.
pub const EVENTS_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Event {
    at_ms: u32,
    what: What,
}

const _: () = assert!(size_of::<Event>() == 16, "the size is promised above");

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The handshake is through.
    Handshake,
    /// A message came.
    Message { type_id: u8, bytes: u32, timestamp_ms: u32 },
    /// A command came; its place in [`COMMANDS`].
    Command(u8),
    /// Something suspicious.
    Glitch(Glitch, u16),
    /// What we answered.
    Answer(Answer),
}

/// What was decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    ConnectAccepted,
    ConnectRefused,
    PublishAccepted,
    PlayAccepted,
    Refused,
    PlayEnded,
    Goodbye,
}

/// The commands that have names here; a name of the peer's own making is `other`.
const COMMANDS: [&str; 18] = [
    "other",
    "connect",
    "createStream",
    "publish",
    "play",
    "FCPublish",
    "FCUnpublish",
    "FCSubscribe",
    "releaseStream",
    "closeStream",
    "deleteStream",
    "getStreamLength",
    "pause",
    "seek",
    "receiveAudio",
    "receiveVideo",
    "_result",
    "onStatus",
];

impl What {
    /// A command by its name.
    pub(super) fn command(name: &str) -> Self {
        let place = COMMANDS.iter().position(|known| *known == name).unwrap_or(0);
        Self::Command(u8::try_from(place).unwrap_or(0))
    }

    fn is_ack(self) -> bool {
        matches!(self, Self::Message { type_id: type_id::ACKNOWLEDGEMENT, .. })
    }

    /// A message by its header. Wire timestamps have 32 bits.
    pub(super) fn message(type_id: u8, bytes: usize, timestamp_ms: u64) -> Self {
        Self::Message {
            type_id,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            timestamp_ms: u32::try_from(timestamp_ms & 0xffff_ffff).unwrap_or(u32::MAX),
        }
    }
}

impl Trace {
    pub(super) fn new(now: Instant) -> Self {
        Self { began_at: now, events: Vec::new(), next: 0, lost: 0 }
    }

    pub(super) fn note(&mut self, now: Instant, what: What) {
        let passed = now.saturating_duration_since(self.began_at).as_millis();
        let event = Event { at_ms: u32::try_from(passed).unwrap_or(u32::MAX), what };
        // A player acknowledges for hours: the newest of a row is enough.
        if let Some(newest) = self.newest().filter(|newest| newest.what.is_ack() && what.is_ack()) {
            *newest = event;
        } else if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else if let Some(oldest) = self.events.get_mut(self.next) {
            *oldest = event;
            self.next = self.next.saturating_add(1) % EVENTS_MAX;
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn newest(&mut self) -> Option<&mut Event> {
        // The ring begins at `next`, so the newest is right before it; before the ring is full that is the end.
        let place = self.next.checked_sub(1).or_else(|| self.events.len().checked_sub(1))?;
        self.events.get_mut(place)
    }

    /// Events in the trace.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True before anything happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// One line: `+12ms connect, +13ms video 4120B @40, …`, with the number of events that it begins after.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lost > 0 {
            write!(f, "after {}: ", self.lost)?;
        }
        let (newer, older) = (self.events.get(..self.next), self.events.get(self.next..));
        for (count, event) in older.into_iter().chain(newer).flatten().enumerate() {
            if count > 0 {
                f.write_str(", ")?;
            }
            write!(f, "+{}ms {}", event.at_ms, event.what)?;
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Handshake => f.write_str("handshake"),
            Self::Command(place) => f.write_str(COMMANDS.get(usize::from(place)).unwrap_or(&"other")),
            Self::Glitch(what, count) => write!(f, "glitch {} x{count}", what.as_str()),
            Self::Message { type_id, bytes, timestamp_ms } => {
                match type_id {
                    type_id::ACKNOWLEDGEMENT => f.write_str("ack")?,
                    type_id::USER_CONTROL => f.write_str("user_control")?,
                    type_id::WINDOW_ACK_SIZE => f.write_str("window_ack_size")?,
                    type_id::SET_PEER_BANDWIDTH => f.write_str("peer_bandwidth")?,
                    type_id::AUDIO => f.write_str("audio")?,
                    type_id::VIDEO => f.write_str("video")?,
                    type_id::DATA_AMF0 => f.write_str("data")?,
                    type_id::AGGREGATE => f.write_str("aggregate")?,
                    other => write!(f, "type_{other}")?,
                }
                write!(f, " {bytes}B @{timestamp_ms}")
            }
            Self::Answer(answer) => f.write_str(match answer {
                Answer::ConnectAccepted => "connect_accepted",
                Answer::ConnectRefused => "connect_refused",
                Answer::PublishAccepted => "publish_accepted",
                Answer::PlayAccepted => "play_accepted",
                Answer::Refused => "refused",
                Answer::PlayEnded => "play_ended",
                Answer::Goodbye => "goodbye",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_64_events_are_kept_in_their_order_and_in_one_line() {
        let start = Instant::now();
        let mut trace = Trace::new(start);
        assert_eq!(trace.to_string(), "");
        trace.note(start, What::Handshake);
        trace.note(start + Duration::from_millis(3), What::command("connect"));
        trace.note(start + Duration::from_millis(4), What::command("a name of its own"));
        assert_eq!(trace.to_string(), "+0ms handshake, +3ms connect, +4ms other");
        for n in 0..1_000 {
            trace.note(start, What::message(type_id::ACKNOWLEDGEMENT, 4, n));
        }
        assert_eq!(trace.len(), 4);
        for n in 0..100 {
            trace.note(start, What::message(type_id::VIDEO, 7, n));
        }
        let line = trace.to_string();
        assert!(line.starts_with("after 40: +0ms video 7B @36, +0ms video 7B @37, "), "{line}");
        assert!(line.ends_with(", +0ms video 7B @99"), "{line}");
        assert_eq!((trace.len(), line.matches("video").count()), (64, 64));
    }

    #[test]
    fn a_full_trace_fits_a_line_of_the_log() {
        let start = Instant::now();
        let mut trace = Trace::new(start);
        for _ in 0..1_000 {
            let late = start + Duration::from_secs(4_000_000);
            trace.note(late, What::message(type_id::WINDOW_ACK_SIZE, usize::MAX, u64::MAX));
        }
        assert!(trace.to_string().len() < 4_000, "{}", trace.to_string().len());
    }
}
