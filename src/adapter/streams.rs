//! The streams of a shard: those published here, and those that others publish and somebody here watches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::media::Frame;
use crate::names::{SessionId, ShardId, StreamKey};
use crate::stream::{Cursor, Live, Package, RelayItem, RelayReceiver, RelaySender, Settings, StreamSample, Subscriber};

/// A stream's place on this shard. Refers to nothing once the stream has left; the owner of a slot keeps the stream
/// there by publishing or subscribing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamSlot(usize);

/// How long a stream that nobody here watches any more keeps its relay, so that a viewer who changes channels back
/// and forth does not make two cores talk each time.
const UNSUBSCRIBE_AFTER: Duration = Duration::from_secs(5);

/// One stream on this shard.
pub struct Entry {
    /// The stream.
    pub live: Live,
    /// The rules that it began with.
    pub settings: Arc<Settings>,
    /// Its publisher, when that is here.
    pub publisher: Option<SessionId>,
    /// Where frames come from when the publisher is on another shard.
    inbound: Option<RelayReceiver>,
    /// Shards that get a copy of each frame.
    relays: Vec<(ShardId, RelaySender)>,
    /// Has bytes that the pump has not handed out, the oldest of which came then.
    dirty_at: Option<Instant>,
    /// How many bytes those are.
    unflushed_bytes: u64,
    /// Control knows that somebody here watches.
    subscribed: bool,
    /// Since when nobody here does.
    unwatched_since: Option<Instant>,
}

/// What a look at the clock found.
#[derive(Debug, PartialEq, Eq)]
pub enum Expired {
    /// The resume window passed without a publisher: these players are to be told.
    Ended(StreamSlot),
    /// Nobody watches any more: control is to be told.
    Unwatched(StreamKey),
}

/// All streams of a shard.
pub struct Streams {
    entries: Slab<Entry>,
    by_key: HashMap<StreamKey, usize>,
    settings: Arc<Settings>,
    /// Caches are half of what the settings allow.
    is_halved: bool,
    dirty: Vec<StreamSlot>,
    /// Streams whose frames come from another shard.
    inbound: Vec<StreamSlot>,
    /// Shards whose relays got frames since the last look; bit per shard would do, a short list is simpler.
    rung: Vec<ShardId>,
    /// Frames × players since the pump's last round: the writes that an unmerged pump would have made.
    deliveries: u64,
    relay_dropped: u64,
}

impl Streams {
    /// A shard without streams.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            entries: Slab::new(),
            by_key: HashMap::new(),
            settings: Arc::new(settings),
            is_halved: false,
            dirty: Vec::new(),
            inbound: Vec::new(),
            rung: Vec::new(),
            deliveries: 0,
            relay_dropped: 0,
        }
    }

    /// Puts other rules in force for streams that begin from now on. What a log holds and how far a player may lag in it
    /// belong together, so a stream keeps the rules that it began with; but all parts of the server must agree on the
    /// resume window, so that one changes for every stream.
    pub fn configure(&mut self, settings: Settings) {
        for (_, entry) in &mut self.entries {
            entry.live.set_resume_window(settings.resume_window);
        }
        self.settings = Arc::new(settings);
    }

    /// The stream in a slot.
    #[must_use]
    pub fn get(&self, slot: StreamSlot) -> Option<&Entry> {
        self.entries.get(slot.0)
    }

    /// The slot of a stream that is here.
    #[must_use]
    pub fn find(&self, key: &StreamKey) -> Option<StreamSlot> {
        self.by_key.get(key).copied().map(StreamSlot)
    }

    /// The slot of a stream, made where it was not here yet.
    pub fn open(&mut self, now: Instant, key: &StreamKey) -> StreamSlot {
        if let Some(slot) = self.find(key) {
            // The window may be over and the sweep that says so still to come: with nobody left to be told, whoever comes
            // now waits for the next publisher and must not be told of the last one's end.
            if let Some(entry) = self.entries.get_mut(slot.0)
                && entry.live.subscribers().is_empty()
                && entry.live.resume_deadline().is_some_and(|deadline| deadline <= now)
            {
                entry.live.resume_ended();
            }
            return slot;
        }
        let index = self.entries.insert(Entry {
            live: self.new_live(now, key),
            settings: Arc::clone(&self.settings),
            publisher: None,
            inbound: None,
            relays: Vec::new(),
            dirty_at: None,
            unflushed_bytes: 0,
            subscribed: false,
            unwatched_since: Some(now),
        });
        self.by_key.insert(key.clone(), index);
        StreamSlot(index)
    }

    fn new_live(&self, now: Instant, key: &StreamKey) -> Live {
        let mut live = Live::new(key.clone(), &self.settings, now);
        if self.is_halved {
            live.set_cache(&halved(&self.settings));
        }
        live
    }

    /// Halves the caches of all streams, or gives them back what the settings allow. What is held beyond is let go with
    /// the next frame.
    pub fn halve_caches(&mut self, is_halved: bool) {
        if std::mem::replace(&mut self.is_halved, is_halved) == is_halved {
            return;
        }
        for (_, entry) in &mut self.entries {
            if is_halved {
                entry.live.set_cache(&halved(&entry.settings));
            } else {
                entry.live.set_cache(&entry.settings);
            }
        }
    }

    /// A publisher begins here.
    pub fn publish(&mut self, now: Instant, key: &StreamKey, publisher: SessionId) -> StreamSlot {
        let slot = self.open(now, key);
        if let Some(entry) = self.entries.get_mut(slot.0) {
            entry.publisher = Some(publisher);
            // A relay that still delivers the previous publisher's tail must not write beside the new one.
            entry.inbound = None;
            entry.live.publisher_joined(now);
            entry.relay(&RelayItem::Online, &mut self.rung, &mut self.relay_dropped);
        }
        slot
    }

    /// The publisher of a slot leaves, if it is still `publisher`. Returns whether it was.
    pub fn unpublish(&mut self, now: Instant, slot: StreamSlot, publisher: SessionId) -> bool {
        let Some(entry) = self.entries.get_mut(slot.0).filter(|entry| entry.publisher == Some(publisher)) else {
            return false;
        };
        entry.publisher = None;
        entry.live.publisher_left(now);
        entry.relay(&RelayItem::Offline, &mut self.rung, &mut self.relay_dropped);
        true
    }

    /// One frame from the publisher of a slot.
    pub fn push(&mut self, now: Instant, slot: StreamSlot, frame: Frame, package: &dyn Package) {
        let Some(entry) = self.entries.get_mut(slot.0) else { return };
        let before = entry.live.log().end();
        let frame = entry.live.push(now, frame, package);
        entry.unflushed_bytes = entry.unflushed_bytes.saturating_add(entry.live.log().end().saturating_sub(before));
        self.deliveries = self.deliveries.saturating_add(entry.live.subscribers().len() as u64);
        if !entry.relays.is_empty() {
            entry.relay(&RelayItem::Frame(frame), &mut self.rung, &mut self.relay_dropped);
        }
        self.mark_dirty(now, slot);
    }

    /// Takes what other shards sent: every item of every inbound relay.
    pub fn pull(&mut self, now: Instant, package: &dyn Package) {
        // Usually a few: the list keeps a doorbell from costing a look at every stream of the shard.
        let mut inbound = std::mem::take(&mut self.inbound);
        inbound.retain(|slot| {
            self.pull_one(now, *slot, package);
            self.entries.get(slot.0).is_some_and(|entry| entry.inbound.is_some())
        });
        inbound.append(&mut self.inbound);
        self.inbound = inbound;
    }

    /// True when [`pull`](Self::pull) would find something.
    #[must_use]
    pub fn has_inbound(&self) -> bool {
        let queue = |slot: &StreamSlot| self.entries.get(slot.0).and_then(|entry| entry.inbound.as_ref());
        self.inbound.iter().filter_map(queue).any(RelayReceiver::has_news)
    }

    fn pull_one(&mut self, now: Instant, slot: StreamSlot, package: &dyn Package) {
        // The queue between shards is bounded, so this loop is.
        while let Some(item) =
            self.entries.get_mut(slot.0).and_then(|e| e.inbound.as_mut()).and_then(RelayReceiver::recv)
        {
            match item {
                RelayItem::Frame(frame) => self.push(now, slot, frame, package),
                RelayItem::Online => {
                    if let Some(entry) = self.entries.get_mut(slot.0) {
                        entry.live.publisher_joined(now);
                    }
                }
                RelayItem::Offline => {
                    if let Some(entry) = self.entries.get_mut(slot.0) {
                        entry.live.publisher_left(now);
                    }
                }
            }
        }
        if let Some(entry) = self.entries.get_mut(slot.0)
            && entry.inbound.as_ref().is_some_and(RelayReceiver::is_closed)
        {
            entry.inbound = None;
            if entry.publisher.is_none() && entry.live.is_published() {
                entry.live.publisher_left(now);
            }
        }
    }

    /// Frames of a stream come through `queue` from now on.
    pub fn attach(&mut self, now: Instant, key: &StreamKey, queue: RelayReceiver, package: &dyn Package) {
        // Nobody here watches any more: dropping the queue tells the home shard.
        let Some(slot) = self.find(key) else { return };
        self.pull_one(now, slot, package);
        if let Some(entry) = self.entries.get_mut(slot.0)
            && entry.publisher.is_none()
        {
            entry.inbound = Some(queue);
            if !self.inbound.contains(&slot) {
                self.inbound.push(slot);
            }
        }
        self.pull_one(now, slot, package);
    }

    /// Copies frames of a stream to another shard from now on, beginning with what a newcomer gets: headers and the
    /// newest group of pictures. The log holds packaged bytes, so `unpackage` makes frames of them again; that happens
    /// once for each shard that begins to watch.
    pub fn open_relay(
        &mut self,
        now: Instant,
        key: &StreamKey,
        to: ShardId,
        mut queue: RelaySender,
        unpackage: impl Fn(&[u8], u64) -> Vec<Frame>,
    ) {
        // Control counts on the order even where the publisher it was given for has left before it began: the next one
        // finds the relay here.
        let slot = self.open(now, key);
        let Some(entry) = self.entries.get_mut(slot.0) else { return };
        let is_resuming = entry.live.resume_deadline().is_some_and(|deadline| deadline > now);
        if entry.publisher.is_some() || is_resuming {
            queue.send(RelayItem::Online);
            entry.relay_cache(now, &mut queue, unpackage);
        }
        if entry.publisher.is_none() && is_resuming {
            // Who joins over there in the resume window must be told when it ends, like who joins here.
            queue.send(RelayItem::Offline);
        }
        entry.relays.retain(|(shard, _)| *shard != to);
        entry.relays.push((to, queue));
        self.rung.push(to);
    }

    /// Stops copying.
    pub fn close_relay(&mut self, key: &StreamKey, to: ShardId) {
        if let Some(entry) = self.by_key.get(key).and_then(|index| self.entries.get_mut(*index)) {
            entry.relays.retain(|(shard, _)| *shard != to);
        }
    }

    /// Adds a player. True when control has to be told that somebody here watches.
    pub fn subscribe(&mut self, slot: StreamSlot, who: Subscriber) -> bool {
        let Some(entry) = self.entries.get_mut(slot.0) else { return false };
        entry.live.subscribe(who);
        entry.unwatched_since = None;
        !std::mem::replace(&mut entry.subscribed, true)
    }

    /// Removes a player.
    pub fn unsubscribe(&mut self, now: Instant, slot: StreamSlot, who: Subscriber) {
        let Some(entry) = self.entries.get_mut(slot.0) else { return };
        entry.live.unsubscribe(who);
        if entry.live.subscribers().is_empty() {
            entry.unwatched_since = Some(now);
        }
    }

    /// Puts a stream on the pump's list.
    pub fn mark_dirty(&mut self, now: Instant, slot: StreamSlot) {
        if let Some(entry) = self.entries.get_mut(slot.0)
            && entry.dirty_at.is_none()
        {
            entry.dirty_at = Some(now);
            self.dirty.push(slot);
        }
    }

    /// True while the pump has work.
    #[must_use]
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Moves the players of every dirty stream to `players` and begins a new account of bytes and deliveries. `ends` gets
    /// the end of each stream's players, and when the oldest of what they are owed came.
    pub fn take_dirty(&mut self, players: &mut Vec<Subscriber>, ends: &mut Vec<(usize, Instant)>) {
        for slot in self.dirty.drain(..) {
            let Some(entry) = self.entries.get_mut(slot.0) else { continue };
            // A slot stands here twice when its stream went and another got its place. No player may be there twice: all
            // are asked what they are owed before the first of them is given any of it.
            let Some(came_at) = entry.dirty_at.take() else { continue };
            entry.unflushed_bytes = 0;
            players.extend_from_slice(entry.live.subscribers());
            if !entry.live.subscribers().is_empty() {
                ends.push((players.len(), came_at));
            }
        }
    }

    /// Frames × players since the last call.
    pub fn take_deliveries(&mut self) -> u64 {
        std::mem::take(&mut self.deliveries)
    }

    /// The next shard whose doorbell is to be rung because its relays got something.
    pub fn poll_ring(&mut self) -> Option<ShardId> {
        let shard = self.rung.pop()?;
        self.rung.retain(|other| *other != shard);
        Some(shard)
    }

    /// Looks at the clock: ends resume windows, lets unwatched streams go.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Expired>) {
        let by_key = &mut self.by_key;
        self.entries.retain(|index, entry| {
            for (_, queue) in &mut entry.relays {
                queue.flush();
            }
            if entry.live.resume_deadline().is_some_and(|deadline| deadline <= now) {
                // Said once: who comes later waits for a publisher like anybody else.
                entry.live.resume_ended();
                if !entry.live.subscribers().is_empty() {
                    out.push(Expired::Ended(StreamSlot(index)));
                }
            }
            let unwatched =
                entry.unwatched_since.is_some_and(|since| now.saturating_duration_since(since) >= UNSUBSCRIBE_AFTER);
            if unwatched && entry.subscribed {
                entry.subscribed = false;
                if entry.publisher.is_none() {
                    entry.inbound = None;
                }
                out.push(Expired::Unwatched(entry.live.key().clone()));
            }
            let resuming = entry.live.resume_deadline().is_some_and(|deadline| deadline > now);
            // Control closes every relay that it opened.
            let is_relayed = entry.relays.iter().any(|(_, queue)| !queue.is_closed());
            let stays = entry.publisher.is_some()
                || !entry.live.subscribers().is_empty()
                || !unwatched
                || resuming
                || is_relayed;
            if !stays {
                by_key.remove(entry.live.key());
            }
            stays
        });
    }

    /// Every stream's numbers.
    pub fn sample(&self, now: Instant, out: &mut Vec<StreamSample>) {
        out.extend(self.entries.iter().map(|(_, entry)| entry.live.sample(now)));
    }

    /// Packaged media held.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.entries.iter().map(|(_, entry)| entry.live.log().memory() as u64).sum()
    }

    /// Frames that did not fit between two shards.
    #[must_use]
    pub fn relay_dropped(&self) -> u64 {
        self.relay_dropped
    }
}

fn halved(settings: &Settings) -> Settings {
    Settings { gop_bytes: settings.gop_bytes / 2, gop_duration: settings.gop_duration / 2, ..settings.clone() }
}

impl Entry {
    /// Bytes that the pump has not handed out.
    #[must_use]
    pub fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes
    }

    /// True while somebody watches, here or on another shard.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        !self.live.subscribers().is_empty() || !self.relays.is_empty()
    }

    /// Sends what a newcomer gets.
    fn relay_cache(&self, now: Instant, queue: &mut RelaySender, unpackage: impl Fn(&[u8], u64) -> Vec<Frame>) {
        let cursor = Cursor::join(&self.live, now);
        let base = cursor.timestamp_ms(&self.live).filter(|_| !cursor.is_waiting());
        for frame in self.live.headers().iter() {
            let timestamp_ms = base.unwrap_or(frame.timestamp_ms);
            queue.send(RelayItem::Frame(Frame { timestamp_ms, ..frame.clone() }));
        }
        if let Some(base) = base {
            let bytes = self.live.log().copy_from(cursor.offset());
            for frame in unpackage(&bytes, base) {
                queue.send(RelayItem::Frame(frame));
            }
        }
    }

    fn relay(&mut self, item: &RelayItem, rung: &mut Vec<ShardId>, dropped: &mut u64) {
        self.relays.retain_mut(|(shard, queue)| {
            if queue.is_closed() {
                return false;
            }
            if !queue.send(item.clone()) {
                *dropped = dropped.saturating_add(1);
            }
            if !rung.contains(shard) {
                rung.push(*shard);
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Name;

    #[test]
    fn who_comes_after_the_window_is_not_told_of_the_end_that_nobody_was_there_for() {
        let window = Duration::from_millis(500);
        let mut streams = Streams::new(Settings { resume_window: window, ..Settings::default() });
        let name = |text| Name::app(text).unwrap();
        let key = StreamKey::new(&name("default"), &name("live"), &Name::stream("cam").unwrap());
        let publisher = SessionId::new(1, [1; 10]);
        let start = Instant::now();
        let slot = streams.publish(start, &key, publisher);
        streams.unpublish(start, slot, publisher);

        // Nobody watched. A viewer comes when the window is over and before anything looked at the clock.
        let late = start + window;
        assert_eq!(streams.open(late, &key), slot);
        streams.subscribe(slot, Subscriber(7));
        let mut expired = Vec::new();
        streams.expire(late, &mut expired);
        assert!(expired.is_empty(), "it was told of an end before its time");

        // One who was there is told.
        let slot = streams.publish(late, &key, publisher);
        streams.unpublish(late, slot, publisher);
        streams.expire(late + window, &mut expired);
        assert!(matches!(expired.as_slice(), [Expired::Ended(ended)] if *ended == slot));
    }

    #[test]
    fn a_stream_that_got_the_place_of_another_is_handed_out_once() {
        let mut streams = Streams::new(Settings::default());
        let name = |text| Name::app(text).unwrap();
        let key = |stream| StreamKey::new(&name("default"), &name("live"), &Name::stream(stream).unwrap());
        let start = Instant::now();
        let slot = streams.open(start, &key("gone"));
        streams.mark_dirty(start, slot);
        let late = start + UNSUBSCRIBE_AFTER;
        streams.expire(late, &mut Vec::new());
        assert_eq!(streams.open(late, &key("next")), slot, "the place is another's now");
        streams.subscribe(slot, Subscriber(7));
        streams.mark_dirty(late, slot);

        let (mut players, mut ends) = (Vec::new(), Vec::new());
        streams.take_dirty(&mut players, &mut ends);
        assert_eq!(players, [Subscriber(7)]);
        assert_eq!(ends, [(1, late)]);
        assert!(!streams.has_dirty());
    }
}
