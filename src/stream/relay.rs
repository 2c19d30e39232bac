//! The crossing of media between two shards: one queue per stream and pair of shards, bounded in frames
//! and bytes. Full means: drop up to the next keyframe, and count.
//!
//! The queue takes no lock. Comings and goings of the publisher have room of their own at its end, and so
//! do decoder configurations, without which what follows them is of no use. Should even that be full (a
//! shard that has stood still through many changes of publisher), the sender keeps what still matters and
//! hands it over first when there is room again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::media::{Frame, Kept, Track};
use crate::stream::Settings;

/// Room at the end of the queue for what is not dropped.
const RESERVE: usize = 64;

/// Headers kept by the sender while there is no room for them.
const HEADERS_MAX: usize = 64;

/// What a queued frame takes beside its payload.
const FRAME_COST: u64 = size_of::<RelayItem>() as u64;

/// What crosses.
#[derive(Clone, Debug)]
pub enum RelayItem {
    /// A frame.
    Frame(Frame),
    /// The publisher came.
    Online,
    /// The publisher left; the receiving shard starts its own resume window.
    Offline,
}

/// The home shard's end.
pub struct RelaySender {
    shared: Arc<Shared>,
    frames_max: usize,
    bytes_max: u64,
    has_video: bool,
    /// Dropping until a keyframe.
    is_skipping: bool,
    dropped: u64,
    held: Held,
}

/// The other shard's end.
pub struct RelayReceiver {
    shared: Arc<Shared>,
}

struct Shared {
    queue: ArrayQueue<RelayItem>,
    bytes: AtomicU64,
    sender_gone: AtomicBool,
    receiver_gone: AtomicBool,
}

/// What must not be lost and found no room. Only the end of a series of comings and goings matters.
#[derive(Default)]
struct Held {
    offline: bool,
    online: bool,
    headers: Vec<Frame>,
}

/// A new relay.
#[must_use]
pub fn relay(settings: &Settings) -> (RelaySender, RelayReceiver) {
    let frames_max = settings.relay_frames.max(1);
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(frames_max.saturating_add(RESERVE)),
        bytes: AtomicU64::new(0),
        sender_gone: AtomicBool::new(false),
        receiver_gone: AtomicBool::new(false),
    });
    let sender = RelaySender {
        shared: Arc::clone(&shared),
        frames_max,
        bytes_max: settings.relay_bytes,
        has_video: false,
        is_skipping: false,
        dropped: 0,
        held: Held::default(),
    };
    (sender, RelayReceiver { shared })
}

impl RelaySender {
    /// Hands over one item. Online and Offline are never dropped. Returns false when it was dropped by the rule.
    pub fn send(&mut self, item: RelayItem) -> bool {
        self.flush();
        match item {
            RelayItem::Frame(frame) => self.send_frame(frame),
            RelayItem::Online => {
                self.has_video = false;
                self.is_skipping = false;
                self.held.headers.clear();
                self.held.online = true;
                self.flush();
                true
            }
            RelayItem::Offline => {
                // Whoever came and left in the meantime need not be known.
                self.held = Held { offline: true, ..Held::default() };
                self.flush();
                true
            }
        }
    }

    /// Hands over what had to wait for room. Every [`send`](Self::send) does it too; the owner does it on its
    /// tick, for the case that nothing more is sent.
    pub fn flush(&mut self) {
        if self.held.offline && self.push(RelayItem::Offline).is_ok() {
            self.held.offline = false;
        }
        if !self.held.offline && self.held.online && self.push(RelayItem::Online).is_ok() {
            self.held.online = false;
        }
        if self.held.is_between_publishers() {
            return;
        }
        while let Some(frame) = self.held.headers.first().cloned() {
            if !self.has_room(frame.payload.len(), RESERVE / 2) || self.push(RelayItem::Frame(frame)).is_err() {
                return;
            }
            self.held.headers.remove(0);
        }
    }

    /// Frames dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// True when the other end is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.receiver_gone.load(Ordering::Acquire)
    }

    fn send_frame(&mut self, frame: Frame) -> bool {
        let is_header = frame.flags.sequence_header || frame.flags.metadata || frame.info.kept != Kept::No;
        let len = frame.payload.len();
        if is_header {
            // Half of the reserve is for headers, the other half for the publisher's comings and goings.
            if self.held.is_empty() && self.has_room(len, RESERVE / 2) {
                return self.push(RelayItem::Frame(frame)).is_ok();
            }
            self.held.keep(frame);
            return true;
        }
        if frame.track == Track::Video && !frame.info.no_media {
            self.has_video = true;
        }
        let is_beginning = frame.flags.keyframe || !self.has_video;
        let may_go = self.held.is_empty() && (!self.is_skipping || is_beginning) && self.has_room(len, 0);
        if may_go && self.push(RelayItem::Frame(frame)).is_ok() {
            self.is_skipping = false;
            return true;
        }
        self.is_skipping = true;
        self.dropped += 1;
        false
    }

    fn has_room(&self, payload_bytes: usize, reserve: usize) -> bool {
        let queued = self.shared.bytes.load(Ordering::Acquire);
        let bytes = queued.saturating_add(payload_bytes as u64).saturating_add(FRAME_COST);
        // A frame larger than the bound may cross alone.
        let fits = bytes <= self.bytes_max || queued == 0 || reserve > 0 && payload_bytes <= 64 << 10;
        fits && self.shared.queue.len() < self.frames_max.saturating_add(reserve)
    }

    fn push(&self, item: RelayItem) -> Result<(), RelayItem> {
        let cost = item.cost();
        // Counted before it can be taken out, so that the count never runs below zero.
        self.shared.bytes.fetch_add(cost, Ordering::AcqRel);
        self.shared.queue.push(item).inspect_err(|_| {
            self.shared.bytes.fetch_sub(cost, Ordering::AcqRel);
        })
    }
}

impl Held {
    fn is_between_publishers(&self) -> bool {
        self.offline || self.online
    }

    fn is_empty(&self) -> bool {
        !self.is_between_publishers() && self.headers.is_empty()
    }

    fn keep(&mut self, frame: Frame) {
        let slot = |frame: &Frame| (frame.track, frame.info.track_id, frame.info.kept, frame.flags.metadata);
        if let Some(kept) = self.headers.iter_mut().find(|kept| slot(kept) == slot(&frame)) {
            *kept = frame;
        } else if self.headers.len() < HEADERS_MAX {
            self.headers.push(frame);
        }
    }
}

impl RelayItem {
    fn cost(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.payload.len() as u64 + FRAME_COST,
            Self::Online | Self::Offline => FRAME_COST,
        }
    }
}

impl RelayReceiver {
    /// The next item.
    pub fn recv(&mut self) -> Option<RelayItem> {
        let item = self.shared.queue.pop()?;
        self.shared.bytes.fetch_sub(item.cost(), Ordering::AcqRel);
        Some(item)
    }

    /// True when there is something to receive, or the home shard's end is gone.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.shared.queue.is_empty() || self.shared.sender_gone.load(Ordering::Acquire)
    }

    /// True when the home shard's end is gone and nothing is left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // In this order: what was sent before the sender went is seen once its going is.
        self.shared.sender_gone.load(Ordering::Acquire) && self.shared.queue.is_empty()
    }
}

impl Drop for RelaySender {
    fn drop(&mut self) {
        self.flush();
        self.shared.sender_gone.store(true, Ordering::Release);
    }
}

impl Drop for RelayReceiver {
    fn drop(&mut self) {
        self.shared.receiver_gone.store(true, Ordering::Release);
        // The payloads are the publisher's memory; they do not wait for the sender to notice.
        while self.recv().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::{FrameFlags, FrameInfo};

    fn settings(frames: usize, bytes: u64) -> Settings {
        Settings { relay_frames: frames, relay_bytes: bytes, ..Settings::default() }
    }

    fn video(time: u64, keyframe: bool) -> RelayItem {
        let flags = FrameFlags { keyframe, ..FrameFlags::default() };
        RelayItem::Frame(Frame::new(Track::Video, time, flags, Bytes::from_static(&[0; 100])))
    }

    fn audio(time: u64) -> RelayItem {
        RelayItem::Frame(Frame::new(Track::Audio, time, FrameFlags::default(), Bytes::from_static(&[0; 10])))
    }

    fn header(track_id: u8, text: &'static str) -> RelayItem {
        let flags = FrameFlags { sequence_header: true, ..FrameFlags::default() };
        let mut frame = Frame::new(Track::Video, 0, flags, Bytes::from_static(text.as_bytes()));
        frame.info = FrameInfo { track_id, kept: Kept::Decoder, ..FrameInfo::default() };
        RelayItem::Frame(frame)
    }

    fn drain(receiver: &mut RelayReceiver) -> Vec<String> {
        std::iter::from_fn(|| receiver.recv())
            .map(|item| match item {
                RelayItem::Online => "online".to_owned(),
                RelayItem::Offline => "offline".to_owned(),
                RelayItem::Frame(frame) if frame.flags.sequence_header => {
                    String::from_utf8_lossy(&frame.payload).into_owned()
                }
                RelayItem::Frame(frame) if frame.flags.keyframe => format!("K{}", frame.timestamp_ms),
                RelayItem::Frame(frame) if frame.track == Track::Video => format!("v{}", frame.timestamp_ms),
                RelayItem::Frame(frame) => format!("a{}", frame.timestamp_ms),
            })
            .collect()
    }

    #[test]
    fn a_full_queue_drops_up_to_the_next_keyframe() {
        let (mut sender, mut receiver) = relay(&settings(3, 1 << 20));
        assert!(sender.send(RelayItem::Online));
        assert!(sender.send(video(0, true)) && sender.send(video(1, false)));
        assert!(!sender.send(video(2, false)), "full");
        assert_eq!(drain(&mut receiver), ["online", "K0", "v1"]);
        assert!(!sender.send(video(3, false)), "its reference was dropped");
        assert!(!sender.send(audio(3)));
        assert!(sender.send(video(4, true)) && sender.send(audio(4)));
        assert_eq!(drain(&mut receiver), ["K4", "a4"]);
        assert_eq!(sender.dropped(), 3);
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let (mut sender, mut receiver) = relay(&settings(1_000, 2_000));
        let sent = (0..100).filter(|n| sender.send(video(*n, true))).count();
        assert!((1..20).contains(&sent), "{sent}");
        assert_eq!(drain(&mut receiver).len(), sent);
        assert_eq!(sender.shared.bytes.load(Ordering::Relaxed), 0);
        assert!(sender.send(video(100, true)));
    }

    #[test]
    fn sound_alone_goes_on_as_soon_as_there_is_room() {
        let (mut sender, mut receiver) = relay(&settings(2, 1 << 20));
        assert!(sender.send(audio(0)) && sender.send(audio(1)) && !sender.send(audio(2)));
        drain(&mut receiver);
        assert!(sender.send(audio(3)));
        assert_eq!(drain(&mut receiver), ["a3"]);
    }

    #[test]
    fn fa_06_comings_and_goings_are_never_lost() {
        let (mut sender, mut receiver) = relay(&settings(4, 1 << 20));
        for n in 0..1_000 {
            sender.send(RelayItem::Online);
            sender.send(header(0, "h"));
            sender.send(video(n, true));
            sender.send(RelayItem::Offline);
        }
        sender.send(RelayItem::Online);
        let mut got = drain(&mut receiver);
        sender.send(header(0, "last"));
        sender.send(video(1_000, true));
        got.extend(drain(&mut receiver));
        assert!(got.len() < 200, "{}", got.len());
        assert_eq!(got[got.len() - 4..], ["offline", "online", "last", "K1000"]);
    }

    #[test]
    fn headers_cross_a_full_queue_before_the_keyframe_that_needs_them() {
        let (mut sender, mut receiver) = relay(&settings(2, 1 << 20));
        sender.send(video(0, true));
        sender.send(video(0, false));
        for n in 0..200 {
            assert!(!sender.send(video(n, false)));
            sender.send(header(0, if n == 199 { "new" } else { "old" }));
        }
        drain(&mut receiver);
        assert!(sender.send(video(200, true)));
        assert_eq!(drain(&mut receiver), ["new", "K200"]);
    }

    #[test]
    fn each_end_learns_that_the_other_is_gone() {
        let (mut sender, receiver) = relay(&Settings::default());
        assert!(!sender.is_closed());
        sender.send(RelayItem::Online);
        drop(receiver);
        assert!(sender.is_closed());

        let (mut sender, mut receiver) = relay(&Settings::default());
        sender.send(RelayItem::Offline);
        drop(sender);
        assert!(!receiver.is_closed(), "something is left");
        assert_eq!(drain(&mut receiver), ["offline"]);
        assert!(receiver.is_closed());
    }

    #[test]
    fn two_threads_lose_nothing_while_there_is_room() {
        let (mut sender, mut receiver) = relay(&settings(10_000, 64 << 20));
        let home = std::thread::spawn(move || (0..5_000).all(|n| sender.send(video(n, n % 10 == 0))));
        let mut got = 0;
        while !receiver.is_closed() {
            got += drain(&mut receiver).len();
        }
        assert!(home.join().unwrap());
        assert_eq!(got, 5_000);
    }
}
