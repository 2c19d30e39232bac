//! The one ordered bus: a bounded ring of recorded events that consumers read with cursors.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::{Event, ServerEvent, ServerWhat};

/// An event with its place in the order.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Counts from 1 since the server's start, without gaps.
    pub number: u64,
    /// The event.
    pub event: Arc<Event>,
}

/// A consumer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The number of the event that it reads next.
    pub next: u64,
    /// The last event that it read ahead of its place.
    ahead: u64,
}

impl Cursor {
    /// The place before event `next`.
    #[must_use]
    pub fn at(next: u64) -> Self {
        Self { next, ahead: 0 }
    }
}

/// The ring. A consumer that falls behind by more than its capacity is told how many it missed.
///
/// Publishing never waits for a consumer and needs none; reading changes nothing but the reader's own cursor.
pub struct Bus {
    ring: VecDeque<Arc<Event>>,
    capacity: usize,
    /// The number that the next event will have; the ring ends just before it.
    next: u64,
    /// The newest event that may be told, while events wait for their record.
    told_to: Option<u64>,
    /// The last that says how the ledger is.
    of_ledger: Option<Recorded>,
}

impl Bus {
    /// A ring of `capacity` events (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { ring: VecDeque::with_capacity(capacity), capacity, next: 1, told_to: None, of_ledger: None }
    }

    /// Records one.
    pub fn publish(&mut self, event: Event) -> Recorded {
        if self.ring.len() == self.capacity {
            self.ring.pop_front();
        }
        let event = Arc::new(event);
        self.ring.push_back(Arc::clone(&event));
        let number = self.next;
        self.next += 1;
        let recorded = Recorded { number, event };
        if is_of_ledger(&recorded.event) {
            self.of_ledger = Some(recorded.clone());
        }
        recorded
    }

    /// From now on events may be told up to `number` and no further: those behind it wait for their record. Until this
    /// is said for the first time, every event may be told at once. True when more may be told than before.
    pub fn tell_to(&mut self, number: u64) -> bool {
        self.told_to.replace(number) != Some(number)
    }

    /// A cursor at the newest event: what is read with it is what happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> Cursor {
        Cursor::at(self.next)
    }

    /// A cursor just after event `number`, for a consumer that resumes. A number that this server has not
    /// reached was given by an earlier life of it; nothing of this life has been read then.
    #[must_use]
    pub fn resume(&self, number: u64) -> Cursor {
        Cursor::at(if number < self.next { number + 1 } else { 1 })
    }

    /// The next event at or after `cursor` that may be told, with the number of events missed before it.
    ///
    /// That the ledger is in trouble is on no record, and those who watch want to know while nothing else can be told: it
    /// comes at once, ahead of what waits. The cursor stays behind it then, and it does not come again in its place.
    pub fn next(&self, cursor: &mut Cursor) -> Option<(u64, Recorded)> {
        let mut missed = 0;
        loop {
            let number = cursor.next.max(1).max(self.oldest());
            if self.told_to.is_some_and(|told_to| number > told_to) {
                return self.next_ahead(cursor).map(|recorded| (missed, recorded));
            }
            let (more, recorded) = self.next_happened(cursor)?;
            missed += more;
            if recorded.number > cursor.ahead || !is_of_ledger(&recorded.event) {
                return Some((missed, recorded));
            }
        }
    }

    /// How the ledger is, when that changed behind what waits for its record.
    fn next_ahead(&self, cursor: &mut Cursor) -> Option<Recorded> {
        let recorded = self.of_ledger.as_ref()?;
        if recorded.number < cursor.next || recorded.number <= cursor.ahead {
            return None;
        }
        cursor.ahead = recorded.number;
        Some(recorded.clone())
    }

    /// The same, told or not: for the log, which is ours.
    pub fn next_happened(&self, cursor: &mut Cursor) -> Option<(u64, Recorded)> {
        // Events count from 1: a cursor at 0 has missed nothing.
        let wanted = cursor.next.max(1);
        let number = wanted.max(self.oldest());
        let index = usize::try_from(number - self.oldest()).ok()?;
        let event = Arc::clone(self.ring.get(index)?);
        cursor.next = number + 1;
        Some((number - wanted, Recorded { number, event }))
    }

    /// The number of the oldest event that is still held; that of the next one while none is.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.next - self.ring.len() as u64
    }
}

fn is_of_ledger(event: &Event) -> bool {
    matches!(event, Event::Server(ServerEvent { what: ServerWhat::Ledger(_), .. }))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn event() -> Event {
        Event::Server(ServerEvent { at: Instant::now(), what: ServerWhat::Ready })
    }

    /// Reads until nothing is left: the numbers read, and how many were missed on the way.
    fn drain(bus: &Bus, cursor: &mut Cursor) -> (Vec<u64>, u64) {
        let (mut numbers, mut missed) = (Vec::new(), 0);
        while let Some((before, recorded)) = bus.next(cursor) {
            numbers.push(recorded.number);
            missed += before;
        }
        (numbers, missed)
    }

    #[test]
    fn numbers_count_from_one_without_gaps() {
        let mut bus = Bus::new(4);
        let numbers: Vec<u64> = (0..10).map(|_| bus.publish(event()).number).collect();
        assert_eq!(numbers, (1..=10).collect::<Vec<u64>>());
    }

    #[test]
    fn a_subscriber_reads_what_follows_and_nothing_before() {
        let mut bus = Bus::new(4);
        let mut first = bus.subscribe();
        bus.publish(event());
        let mut second = bus.subscribe();
        bus.publish(event());
        assert_eq!(drain(&bus, &mut first), (vec![1, 2], 0));
        assert_eq!(drain(&bus, &mut second), (vec![2], 0));
        assert!(bus.next(&mut first).is_none(), "an event is read once");
    }

    #[test]
    fn a_subscriber_that_falls_behind_is_told_how_many_it_missed() {
        let mut bus = Bus::new(3);
        let mut cursor = bus.subscribe();
        for _ in 0..3 {
            bus.publish(event());
        }
        let mut at_the_limit = cursor;
        assert_eq!(drain(&bus, &mut at_the_limit), (vec![1, 2, 3], 0));
        bus.publish(event());
        let (missed, recorded) = bus.next(&mut cursor).unwrap();
        assert_eq!((missed, recorded.number), (1, 2));
        assert_eq!(drain(&bus, &mut cursor), (vec![3, 4], 0));
    }

    #[test]
    fn a_consumer_resumes_after_the_last_number_it_saw() {
        let mut bus = Bus::new(2);
        assert_eq!(bus.resume(0), bus.subscribe(), "nothing has happened yet");
        for _ in 0..5 {
            bus.publish(event());
        }
        assert_eq!(drain(&bus, &mut bus.resume(4)), (vec![5], 0));
        assert_eq!(drain(&bus, &mut bus.resume(5)), (vec![], 0));
        assert_eq!(drain(&bus, &mut bus.resume(0)), (vec![4, 5], 3));
    }

    #[test]
    fn a_number_from_an_earlier_life_of_the_server_resumes_at_the_beginning() {
        let mut bus = Bus::new(8);
        bus.publish(event());
        for number in [2, 5_000, u64::MAX] {
            assert_eq!(drain(&bus, &mut bus.resume(number)), (vec![1], 0));
        }
    }

    #[test]
    fn a_cursor_beyond_the_newest_event_waits() {
        let mut bus = Bus::new(2);
        let mut cursor = Cursor::at(u64::MAX);
        bus.publish(event());
        assert!(bus.next(&mut cursor).is_none());
        assert_eq!(cursor, Cursor::at(u64::MAX), "and stays where it is");
    }

    #[test]
    fn an_event_is_not_told_before_it_is_on_record() {
        let mut bus = Bus::new(8);
        bus.tell_to(0);
        let mut cursor = bus.subscribe();
        let mut log = cursor;
        for _ in 0..3 {
            bus.publish(event());
        }
        assert_eq!(drain(&bus, &mut cursor), (vec![], 0));
        bus.tell_to(2);
        assert_eq!(drain(&bus, &mut cursor), (vec![1, 2], 0));
        assert_eq!(bus.next_happened(&mut log).map(|(_, recorded)| recorded.number), Some(1));
        bus.tell_to(3);
        assert_eq!(drain(&bus, &mut cursor), (vec![3], 0));
    }

    #[test]
    fn fa_13_how_the_ledger_is_comes_ahead_of_what_waits_for_it_and_once() {
        let ledger = |is_ok| Event::Server(ServerEvent { at: Instant::now(), what: ServerWhat::Ledger(is_ok) });
        let mut bus = Bus::new(8);
        bus.tell_to(0);
        let mut cursor = bus.subscribe();
        bus.publish(event());
        bus.publish(ledger(false));
        bus.publish(event());
        assert_eq!(drain(&bus, &mut cursor), (vec![2], 0));
        assert_eq!(cursor.next, 1, "who comes back resumes before what waits");
        assert_eq!(drain(&bus, &mut bus.subscribe()), (vec![], 0), "what was before is not news");
        bus.publish(ledger(true));
        assert_eq!(drain(&bus, &mut cursor), (vec![4], 0));
        bus.tell_to(4);
        assert_eq!(drain(&bus, &mut cursor), (vec![1, 3], 0));
        assert_eq!(
            drain(&bus, &mut bus.resume(0)),
            (vec![1, 2, 3, 4], 0),
            "it has its place in the order all the same"
        );
    }

    #[test]
    fn the_ring_holds_no_more_than_its_capacity() {
        for capacity in [0, 1, 7] {
            let mut bus = Bus::new(capacity);
            let held: Vec<_> = (0..20).map(|_| Arc::downgrade(&bus.publish(event()).event)).collect();
            assert_eq!(held.iter().filter(|event| event.strong_count() > 0).count(), capacity.max(1));
        }
    }
}
