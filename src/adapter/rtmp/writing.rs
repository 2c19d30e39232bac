//! What an RTMP connection writes: the engine's answers, and the stream from the player's cursor on.

use std::io::IoSlice;
use std::time::Instant;

use crate::adapter::rtmp::{Packager, Role, Rtmp};
use crate::adapter::{Core, Flow, Sent, Wire};
use crate::media::Frame;
use crate::session::{State, What};
use crate::stdx::ahead;
use crate::stream::{Due, Package, Written};

/// Slices of one vectored write. A block of the log is 64 KiB, so sixteen carry more than a write ever takes.
const SLICES_MAX: usize = 16;
/// Bytes of one write: a newcomer's whole group of pictures goes out in few calls, and no single player keeps the
/// shard for longer than it takes to copy this much.
const WRITE_BYTES_MAX: usize = 512 << 10;

/// What was offered to the kernel and what it took of it, between [`Rtmp::offer`] and [`Rtmp::settle`].
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    bytes: usize,
    slices: usize,
    /// The rest of a frame, ahead of the engine's answers.
    is_remainder: bool,
    sent: Sent,
}

impl Rtmp {
    /// Writes what is due: the engine's own answers first, then the stream from the player's cursor on.
    pub fn write(&mut self, now: Instant, core: &mut Core, wire: &mut dyn Wire) -> Flow {
        if let Some(flow) = self.begin_write(now, core) {
            return flow;
        }
        let offered = self.offer(core, wire);
        self.settle(now, core, offered)
    }

    /// The first of the three steps of [`write`](Self::write), for who writes to many: with one step at a time for all of
    /// them neither our code nor the kernel's has to be fetched anew for each. Finds out what is due; where that is nothing,
    /// the write ends here.
    pub fn begin_write(&mut self, now: Instant, core: &mut Core) -> Option<Flow> {
        match self.prepare(now, core) {
            Due::GiveUp { .. } => Some(Flow::GiveUp),
            Due::Nothing if self.engine.output().is_empty() => {
                self.close_ending(now, core);
                Some(Flow::Idle)
            }
            _ => None,
        }
    }

    /// The second: offers it to the kernel. Nothing may be pushed to the stream between this and the step before and after.
    pub fn offer(&self, core: &Core, wire: &mut dyn Wire) -> Offered {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut filled = 0;
        let mut is_remainder = false;
        let output = self.engine.pending_output();
        let live = match &self.role {
            Role::Playing(it) => core.streams.get(it.slot).map(|entry| (&it.cursor, &entry.live)),
            _ => None,
        };
        // An answer may not cut a chunk of the stream in two: the rest of a frame that is half out goes first.
        if let Some((cursor, live)) = live {
            let remainder = cursor.frame_remainder();
            if remainder > 0 && !output.is_empty() {
                is_remainder = true;
                let max = remainder.min(WRITE_BYTES_MAX as u64);
                filled = cursor.slices(live, usize::try_from(max).unwrap_or(WRITE_BYTES_MAX), &mut slices);
            }
        }
        if !is_remainder {
            if !output.is_empty()
                && let Some(slot) = slices.first_mut()
            {
                *slot = IoSlice::new(output);
                filled = 1;
            }
            if let Some((cursor, live)) = live
                && let Some(rest) = slices.get_mut(filled..)
            {
                filled = filled.saturating_add(cursor.slices(live, WRITE_BYTES_MAX, rest));
            }
        }
        let slices = slices.get(..filled).unwrap_or_default();
        let mut bytes = 0_usize;
        for slice in slices {
            bytes = bytes.saturating_add(slice.len());
        }
        let sent = if bytes == 0 { Sent::Bytes(0) } else { wire.send(slices) };
        Offered { bytes, slices: filled, is_remainder, sent }
    }

    /// The third: books what the kernel took.
    pub fn settle(&mut self, now: Instant, core: &mut Core, offered: Offered) -> Flow {
        let sent = match offered.sent {
            Sent::Bytes(sent) => sent,
            Sent::Blocked => 0,
            Sent::Gone => return Flow::Gone,
        };
        let answers = if offered.is_remainder { 0 } else { sent.min(self.engine.pending_output().len()) };
        self.drop_output(answers);
        self.on_written(now, core, sent, sent.saturating_sub(answers), offered.bytes);
        if sent < offered.bytes || offered.sent == Sent::Blocked {
            return Flow::Blocked;
        }
        if self.engine.pending_output().is_empty() {
            self.close_ending(now, core);
        }
        // A player of one track gets a slice for each frame and may be owed more than fitted.
        let has_more = offered.is_remainder || offered.bytes >= WRITE_BYTES_MAX || offered.slices == SLICES_MAX;
        if has_more { Flow::More } else { Flow::Idle }
    }

    /// Begins to bring a player's place in its stream into the cache, before [`write`](Self::write).
    pub fn fetch_place(&self) {
        if let Role::Playing(it) = &self.role {
            ahead::fetch(&**it);
        }
    }

    /// Begins to bring a player's session into the cache, after [`fetch_place`](Self::fetch_place).
    pub fn fetch_session(&self, core: &Core) {
        if let Role::Playing(it) = &self.role {
            core.sessions.fetch(it.session);
        }
    }

    /// The first bytes that wait for a peer which takes none: what readiness is to be asked for with. Empty when
    /// nothing waits.
    pub fn with_first_waiting<R>(&mut self, core: &Core, use_it: impl FnOnce(&[u8]) -> R) -> R {
        let mut slices = [IoSlice::new(&[]); 1];
        if let Role::Playing(it) = &self.role
            && let Some(entry) = core.streams.get(it.slot)
            && (self.engine.output().is_empty() || it.cursor.frame_remainder() > 0)
        {
            let remainder = it.cursor.frame_remainder();
            let max = if self.engine.output().is_empty() || remainder == 0 {
                WRITE_BYTES_MAX
            } else {
                usize::try_from(remainder).unwrap_or(WRITE_BYTES_MAX)
            };
            it.cursor.slices(&entry.live, max, &mut slices);
            let [first] = slices;
            return use_it(&first);
        }
        use_it(self.engine.output())
    }

    /// Books `sent` bytes that went out through [`with_first_waiting`](Self::with_first_waiting).
    pub fn handle_written(&mut self, now: Instant, core: &mut Core, sent: usize) {
        let from_log = match &self.role {
            Role::Playing(it) => self.engine.output().is_empty() || it.cursor.frame_remainder() > 0,
            _ => false,
        };
        if from_log {
            self.on_written(now, core, sent, sent, sent);
        } else {
            self.drop_output(sent);
            self.on_written(now, core, sent, 0, sent);
        }
    }

    /// The player's cursor after the clock and the window: jumps it where it fell out, sends headers where needed.
    pub(super) fn prepare(&mut self, now: Instant, core: &mut Core) -> Due {
        let Role::Playing(it) = &mut self.role else { return Due::Nothing };
        let Some(entry) = core.streams.get(it.slot) else { return Due::Nothing };
        let mut due = it.cursor.due(&entry.live, &entry.settings, now);
        let mut jumped = None;
        if let Due::Jumped { dropped_frames, headers_changed } = due {
            jumped = Some(dropped_frames);
            if headers_changed {
                it.headers = None;
            }
            due = it.cursor.due(&entry.live, &entry.settings, now);
        }
        if let Due::GiveUp { dropped_frames } = due {
            jumped = Some(dropped_frames);
        }
        let mut header_bytes = 0;
        let mut header_frames = 0;
        if let Due::Bytes(waiting) = due {
            it.wait_until = None;
            // Headers go into the engine's own output, which is written before the log: only at a frame's boundary.
            if it.headers.is_none() && it.cursor.frame_remainder() == 0 {
                let headers = entry.live.headers();
                it.headers = Some(headers.generation);
                let packager = Packager::new(&core.rtmp);
                let at = it.cursor.timestamp_ms(&entry.live);
                for frame in it.cursor.missing_headers(&entry.live) {
                    let frame = Frame { timestamp_ms: at.unwrap_or(frame.timestamp_ms), ..frame.clone() };
                    packager.package(&frame, self.engine.output());
                    header_bytes += frame.payload.len() as u64;
                    header_frames += 1;
                }
            }
            // The counters of a player that keeps up are touched once a write, not twice.
            if (waiting > it.queue_peak || header_frames > 0)
                && let Some(counters) = core.sessions.counters_mut(it.session)
            {
                it.queue_peak = it.queue_peak.max(waiting);
                counters.queue_peak_bytes = counters.queue_peak_bytes.max(waiting);
                counters.tx_media_bytes += header_bytes;
                counters.tx_frames += header_frames;
            }
        }
        if let Some(dropped_frames) = jumped.filter(|dropped| *dropped > 0) {
            let session = it.session;
            if let Some(counters) = core.sessions.counters_mut(session) {
                counters.overflows += 1;
                counters.dropped_frames += dropped_frames;
            }
            core.dropped_frames += dropped_frames;
            if core.sessions.state(session) == Some(State::Running) {
                core.record(now, session, What::Overflowed { dropped_frames });
            }
        }
        due
    }

    fn drop_output(&mut self, sent: usize) {
        if sent == 0 {
            return;
        }
        let output = self.engine.output();
        if sent < output.len() {
            output.drain(..sent);
        } else {
            // An idle connection keeps no buffer: what is sent whole is freed rather than cleared.
            *output = Vec::new();
        }
    }

    fn on_written(&mut self, now: Instant, core: &mut Core, sent: usize, from_log: usize, offered: usize) {
        let Role::Playing(it) = &mut self.role else { return self.book(core, 0, sent as u64) };
        let session = it.session;
        let mut written = Written::default();
        let mut lag = 0;
        if let Some(entry) = core.streams.get(it.slot) {
            if from_log > 0 {
                it.last_write_at = now;
                written = it.cursor.on_written(&entry.live, from_log as u64);
            }
            lag = it.cursor.lag_bytes(&entry.live);
        }
        let mut delivered = 0;
        if let Some(counters) = core.sessions.counters_mut(session) {
            counters.tx_bytes += sent as u64;
            counters.tx_frames += written.frames;
            counters.tx_media_bytes += written.media_bytes;
            delivered = counters.tx_media_bytes;
        }
        if sent < offered {
            if sent > 0 || it.blocked_since.is_none() {
                it.blocked_since = Some(now);
            }
            core.sessions.set_queue(session, lag);
        } else if it.blocked_since.take().is_some() {
            core.sessions.set_queue(session, 0);
        }
        if from_log == 0 {
            return;
        }
        match core.sessions.state(session) {
            Some(State::Establishing) if delivered >= core.settings.play_started_bytes => {
                core.record(now, session, What::Started);
            }
            Some(State::Stalling) => core.record(now, session, What::Recovered),
            _ => {}
        }
    }

    /// A play that ends in the middle of a frame: the rest of the frame goes before the answers, or they would be read
    /// as part of it.
    pub(super) fn keep_remainder(&mut self, core: &mut Core) {
        let Role::Playing(it) = &self.role else { return };
        let left = usize::try_from(it.cursor.frame_remainder()).unwrap_or(usize::MAX);
        let Some(entry) = core.streams.get(it.slot).filter(|_| left > 0) else { return };
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = it.cursor.slices(&entry.live, left, &mut slices);
        let mut rest: Vec<u8> = slices.iter().take(filled).flat_map(|slice| slice.iter().copied()).collect();
        let bytes = rest.len() as u64;
        let written = it.cursor.clone().on_written(&entry.live, bytes);
        rest.append(self.engine.output());
        *self.engine.output() = rest;
        if let Some(counters) = core.sessions.counters_mut(it.session) {
            counters.tx_frames += written.frames;
            counters.tx_media_bytes += written.media_bytes;
        }
    }
}
