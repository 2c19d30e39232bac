//! Packaged bytes of one wire form, shared by all players of a stream on a shard.
//!
//! The bytes stand in blocks of one size, so that an offset says at once which block it is in, and so
//! that a block which falls out at the front is used again at the back: a stream in its stride allocates
//! nothing. Beside the bytes there is an index with one entry per frame.
//!
//! ```text
//!   attic          | retired group | newest join point                          end
//!   blocks of      |               |            <----- queue_bytes, queue_time --->
//!   frames halfway |<---------------------- index, start() … end() -------------->|
//! ```
//!
//! What is held: everything from the newest join point on, and whatever players may lag behind in. Two
//! things are held a little longer. The group of pictures before the newest one stays for `queue_time`,
//! because a newcomer may have begun there a moment ago. And a block in which some player stands in the
//! middle of a frame goes to the attic for `queue_time` when it falls out, because a frame once begun
//! has to be finished before that player can go on anywhere else. All of it together stays within
//! `gop_bytes + queue_bytes` and one block; the attic gives way first.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;

use crate::media::{Frame, Kept, Track};
use crate::stream::{Package, Settings};

/// The size of a block.
pub const BLOCK_BYTES: usize = 64 << 10;

/// The same as an offset.
const BLOCK: u64 = BLOCK_BYTES as u64;

/// Blocks kept for use again. The window slides a frame at a time, so that few are ever idle.
const POOL_MAX: usize = 8;

/// What a frame costs beside its bytes: its place in the index, twice, because the index grows by doubling.
const ENTRY_COST: u64 = 2 * size_of::<Entry>() as u64;

/// An index that has grown for a flood of tiny frames is made small again from this size on.
const INDEX_SHRINK: usize = 1_024;

/// An append-only byte log with an index of frames. Offsets count from the stream's beginning and never
/// repeat; the front is trimmed as the window moves on.
pub struct Log {
    limits: Limits,
    blocks: VecDeque<Block>,
    attic: VecDeque<Shelved>,
    pool: Vec<Vec<u8>>,
    index: VecDeque<Entry>,
    /// The sequence number of the index's first entry.
    first: u64,
    end: u64,
    /// The newest keyframe, if all of its group of pictures is here.
    join: Option<u64>,
    retired: Option<Retired>,
    /// The newest video frame.
    last_video: Option<u64>,
    scratch: Vec<u8>,
    oversized: u64,
}

/// One frame of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where its bytes begin.
    pub(super) offset: u64,
    /// When it was appended, on the stream's clock.
    pub(super) at_ms: u64,
    /// Its time in the stream.
    pub(super) timestamp_ms: u64,
    /// How many bytes it has, packaged.
    pub(super) len: u32,
    /// How many bytes its payload has.
    pub(super) media_len: u32,
    /// The headers' generation once this frame has been received.
    pub(super) generation: u32,
    /// The kind of track.
    pub(super) track: Track,
    /// Video may begin here.
    pub(super) is_key: bool,
    /// Configuration or metadata, which every player gets whatever tracks it asked for.
    pub(super) is_header: bool,
}

impl Entry {
    /// Where its bytes end.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// What an appended frame is to the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Now, on the stream's clock.
    pub(super) now_ms: u64,
    /// The headers' generation, this frame included.
    pub(super) generation: u32,
    /// A newcomer may begin here.
    pub(super) is_join: bool,
}

struct Block {
    /// Its first byte is at `number * BLOCK`.
    number: u64,
    data: Vec<u8>,
    /// A player has stopped in the middle of a frame that has bytes here.
    is_pinned: Cell<bool>,
}

/// A block that fell out of the window with a player in it.
struct Shelved {
    block: Block,
    until_ms: u64,
}

/// The group of pictures before the newest.
#[derive(Clone, Copy)]
struct Retired {
    seq: u64,
    until_ms: u64,
}

#[derive(Clone, Copy)]
struct Limits {
    gop_bytes: u64,
    gop_ms: u64,
    queue_bytes: u64,
    queue_ms: u64,
    /// The most that index and bytes from the first frame to the last may cost.
    span: u64,
    /// The most that blocks and index together may take.
    memory: u64,
}

impl Limits {
    fn new(settings: &Settings) -> Self {
        let memory = settings.gop_bytes.saturating_add(settings.queue_bytes).max(4 * BLOCK);
        Self {
            gop_bytes: settings.gop_bytes,
            gop_ms: millis(settings.gop_duration),
            queue_bytes: settings.queue_bytes,
            queue_ms: millis(settings.queue_time),
            // The first and the last block are rarely full.
            span: memory - 2 * BLOCK,
            memory,
        }
    }
}

impl Log {
    /// An empty log.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            limits: Limits::new(settings),
            blocks: VecDeque::new(),
            attic: VecDeque::new(),
            pool: Vec::new(),
            index: VecDeque::new(),
            first: 0,
            end: 0,
            join: None,
            retired: None,
            last_video: None,
            scratch: Vec::new(),
            oversized: 0,
        }
    }

    /// Holds no more than `settings` allow from the next frame on.
    pub fn set_limits(&mut self, settings: &Settings) {
        self.limits = Limits::new(settings);
    }

    /// The offset one past the newest byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The offset of the oldest byte still held.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.index.front().map_or(self.end, |entry| entry.offset)
    }

    /// Fills `out` with the bytes from `from` on, up to `max_bytes` and as many slices as `out` takes;
    /// returns how many slices were filled. No copy, no allocation.
    pub fn slices<'a>(&'a self, from: u64, max_bytes: usize, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = Filled { out, count: 0, left: max_bytes };
        self.fill(from, self.end, &mut filled);
        filled.count
    }

    /// A copy of everything from `from` on.
    #[must_use]
    pub fn copy_from(&self, from: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut slices = [IoSlice::new(&[]); 16];
        loop {
            let filled = self.slices(from.saturating_add(out.len() as u64), usize::MAX, &mut slices);
            if filled == 0 {
                return out;
            }
            for slice in slices.iter().take(filled) {
                out.extend_from_slice(slice);
            }
        }
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        let blocks = self.blocks.len() + self.attic.len() + self.pool.len();
        blocks * BLOCK_BYTES + self.index.capacity() * size_of::<Entry>() + self.scratch.capacity()
    }

    /// Bytes held for newcomers and slow players.
    #[must_use]
    pub fn cached(&self) -> u64 {
        self.end - self.start()
    }

    /// Frames that were larger than all of the window, and that nobody received.
    #[must_use]
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// The sequence number of the oldest frame held.
    pub(super) fn first_seq(&self) -> u64 {
        self.first
    }

    /// The sequence number that the next frame will have.
    pub(super) fn next_seq(&self) -> u64 {
        self.first + self.index.len() as u64
    }

    /// The newest place where a newcomer can begin to watch.
    pub(super) fn join_seq(&self) -> Option<u64> {
        self.join
    }

    /// True when there is video at or behind `seq`.
    pub(super) fn has_video_from(&self, seq: u64) -> bool {
        self.last_video.is_some_and(|last| last >= seq)
    }

    /// The frame with that number, unless it is gone or yet to come.
    pub(super) fn entry(&self, seq: u64) -> Option<&Entry> {
        self.index.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// The first frame no older than `at_ms`.
    pub(super) fn seq_since(&self, at_ms: u64) -> u64 {
        self.first + self.index.partition_point(|entry| entry.at_ms < at_ms) as u64
    }

    /// Newcomers must not begin with what is here; players go on as they are.
    pub(super) fn forget_join(&mut self) {
        self.join = None;
    }

    /// Packages `frame`, appends it and lets go of what nobody is owed any longer. False when the frame is
    /// larger than everything the log may hold; it is then left out.
    pub(super) fn append(&mut self, frame: &Frame, position: Position, package: &dyn Package) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        package.package(frame, &mut scratch);
        let is_taken = self.append_packaged(frame, position, &scratch);
        // What one huge frame needed is not kept for the small ones that follow.
        if scratch.capacity() <= BLOCK_BYTES {
            self.scratch = scratch;
        }
        is_taken
    }

    fn append_packaged(&mut self, frame: &Frame, position: Position, bytes: &[u8]) -> bool {
        let len = u32::try_from(bytes.len()).ok().filter(|len| u64::from(*len) + ENTRY_COST <= self.limits.span);
        let Some(len) = len else {
            self.oversized += 1;
            if frame.track == Track::Video {
                // What follows refers to pictures that are not here.
                self.join = None;
            }
            return false;
        };
        if len == 0 {
            return true;
        }
        let seq = self.next_seq();
        if position.is_join {
            let until_ms = position.now_ms.saturating_add(self.limits.queue_ms);
            self.retired = self.join.map(|seq| Retired { seq, until_ms });
            self.join = Some(seq);
        }
        if frame.track == Track::Video && !frame.flags.sequence_header {
            self.last_video = Some(seq);
        }
        // The clock never runs backwards; that the index is sorted by it must not depend on that.
        let at_ms = self.index.back().map_or(position.now_ms, |last| last.at_ms.max(position.now_ms));
        self.index.push_back(Entry {
            offset: self.end,
            at_ms,
            timestamp_ms: frame.timestamp_ms,
            len,
            media_len: u32::try_from(frame.payload.len()).unwrap_or(u32::MAX),
            generation: position.generation,
            track: frame.track,
            is_key: position.is_join,
            is_header: frame.flags.sequence_header || frame.flags.metadata || frame.info.kept != Kept::No,
        });
        // Room first, so that memory does not exceed its bound even for a moment.
        let end = self.end + u64::from(len);
        self.trim(position.now_ms, end);
        self.write(bytes);
        debug_assert_eq!(self.end, end);
        true
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let is_full = self.blocks.back().is_none_or(|block| block.data.len() == BLOCK_BYTES);
            if is_full {
                let data = self.pool.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES));
                self.blocks.push_back(Block { number: self.end / BLOCK, data, is_pinned: Cell::new(false) });
            }
            let Some(block) = self.blocks.back_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - block.data.len()));
            block.data.extend_from_slice(now);
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    /// Drops what is out of the window that ends at `end`. The newest frame always stays.
    fn trim(&mut self, now_ms: u64, end: u64) {
        let limits = self.limits;
        let next = self.next_seq();
        let cost = |entry: &Entry, seq: u64| (end - entry.offset) + (next - seq) * ENTRY_COST;
        let age = |entry: &Entry| now_ms.saturating_sub(entry.at_ms);

        let join = self.join.and_then(|seq| Some((seq, self.entry(seq)?)));
        self.join = join
            .filter(|(seq, entry)| {
                cost(entry, *seq) <= limits.gop_bytes.min(limits.span) && age(entry) <= limits.gop_ms
            })
            .map(|(seq, _)| seq);
        self.retired = self.retired.filter(|retired| {
            now_ms <= retired.until_ms
                && self.entry(retired.seq).is_some_and(|entry| cost(entry, retired.seq) <= limits.span)
        });
        let needed = self.join.unwrap_or(next).min(self.retired.map_or(next, |retired| retired.seq));

        while let Some(front) = self.index.front().filter(|_| self.index.len() > 1) {
            // A frame is measured from its end: one alone may be as large as the whole queue.
            let behind = cost(front, self.first) - u64::from(front.len);
            let is_in_window = behind <= limits.queue_bytes && age(front) <= limits.queue_ms;
            let fits = cost(front, self.first) <= limits.span;
            if fits && (is_in_window || self.first >= needed) {
                break;
            }
            self.index.pop_front();
            self.first += 1;
        }
        let capacity = self.index.capacity();
        if capacity > INDEX_SHRINK && self.index.len() < capacity / 4 {
            self.index.shrink_to(capacity / 2);
        }
        self.release(now_ms, end);
    }

    /// Takes the blocks that no indexed frame needs out of the row.
    fn release(&mut self, now_ms: u64, end: u64) {
        let start = self.start();
        while self.blocks.front().is_some_and(|block| (block.number + 1) * BLOCK <= start) {
            let Some(block) = self.blocks.pop_front() else { break };
            if block.is_pinned.get() {
                let until_ms = now_ms.saturating_add(self.limits.queue_ms);
                self.attic.push_back(Shelved { block, until_ms });
            } else {
                self.recycle(block);
            }
        }
        // What blocks and index will take once everything up to `end` is written.
        let from = self.blocks.front().map_or(self.end / BLOCK, |block| block.number);
        let index = (self.index.capacity() * size_of::<Entry>()) as u64;
        let row = (end.div_ceil(BLOCK).saturating_sub(from)) * BLOCK + index;
        let room = usize::try_from(self.limits.memory.saturating_sub(row) / BLOCK).unwrap_or(usize::MAX);
        while self.attic.front().is_some_and(|shelved| now_ms > shelved.until_ms) || self.attic.len() > room {
            match self.attic.pop_front() {
                Some(shelved) => self.recycle(shelved.block),
                None => break,
            }
        }
        // Blocks in the pool that are about to be used are counted twice here, which errs on the safe side.
        self.pool.truncate(room - self.attic.len());
    }

    fn recycle(&mut self, block: Block) {
        if self.pool.len() < POOL_MAX {
            let mut data = block.data;
            data.clear();
            self.pool.push(data);
        }
    }

    /// Says that a player has stopped at `from` in a frame that ends at `to`.
    pub(super) fn pin(&self, from: u64, to: u64) {
        for number in from / BLOCK..to.div_ceil(BLOCK) {
            if let Some(block) = self.block(number) {
                block.is_pinned.set(true);
            }
        }
    }

    /// True while all bytes from `from` to `to` can be read.
    pub(super) fn holds(&self, from: u64, to: u64) -> bool {
        to <= self.end && (from / BLOCK..to.div_ceil(BLOCK)).all(|number| self.block(number).is_some())
    }

    /// Adds the bytes from `from` to `to`, or as many as there is room for.
    pub(super) fn fill<'a>(&'a self, mut from: u64, to: u64, filled: &mut Filled<'_, 'a>) {
        while from < to {
            let Some(block) = self.block(from / BLOCK) else { return };
            let at = usize::try_from(from % BLOCK).unwrap_or(0);
            let len = usize::try_from(to - from).unwrap_or(usize::MAX);
            let Some(bytes) = block.data.get(at..at.saturating_add(len).min(block.data.len())) else { return };
            if bytes.is_empty() || !filled.push(bytes) {
                return;
            }
            from += bytes.len() as u64;
        }
    }

    fn block(&self, number: u64) -> Option<&Block> {
        if let Some(place) = number.checked_sub(self.blocks.front()?.number) {
            return self.blocks.get(usize::try_from(place).ok()?);
        }
        let place = self.attic.binary_search_by_key(&number, |shelved| shelved.block.number).ok()?;
        self.attic.get(place).map(|shelved| &shelved.block)
    }
}

/// Slices being collected for one vectored write.
pub(super) struct Filled<'o, 'a> {
    pub(super) out: &'o mut [IoSlice<'a>],
    pub(super) count: usize,
    pub(super) left: usize,
}

impl<'a> Filled<'_, 'a> {
    /// Takes as much of `bytes` as may still go; false when that was not all, or when nothing more may go.
    fn push(&mut self, bytes: &'a [u8]) -> bool {
        let taken = bytes.get(..self.left).unwrap_or(bytes);
        let Some(slot) = self.out.get_mut(self.count).filter(|_| !taken.is_empty()) else { return false };
        *slot = IoSlice::new(taken);
        self.count += 1;
        self.left -= taken.len();
        taken.len() == bytes.len()
    }

    /// True while more may go than the `bytes` that wait to be added.
    pub(super) fn has_room_beyond(&self, bytes: u64) -> bool {
        self.left as u64 > bytes && self.count < self.out.len()
    }
}

/// A setting as milliseconds of the stream's clock.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
