//! A receiver that is away for an hour, on virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use sluicegate::event::Weight;
use sluicegate::hook::teller::{Limits, Outcome, Request, Teller};
use sluicegate::names::SessionId;
use sluicegate::stdx::ids::SplitMix;

use crate::support::{Memory, parcel, session};

/// As configured by default.
const LIMITS: Limits = Limits { batch_max: 1, concurrency: 64, window: 10_000, window_bytes: 16 << 20, rate: 2_000 };
const HOUR: Duration = Duration::from_secs(3_600);
/// Sessions that begin in a second; each ends after ten.
const OPENINGS: u64 = 10;

/// One hour of sessions coming and going while nobody listens, then the receiver is back.
fn an_hour_away(away: Duration, fails_after: Duration) {
    let mut teller = Teller::new(LIMITS, 7);
    let mut dice = SplitMix::new(7);
    let spool = Memory::default();
    let began = Instant::now();
    let mut now = began;
    // Recording: every event of every session, in the order of time.
    let mut plan: BTreeMap<(Duration, u64), (SessionId, Weight)> = BTreeMap::new();
    let lasts = away.as_secs() + 10;
    for number in 0..lasts * OPENINGS {
        let opens = Duration::from_millis(number * 1_000 / OPENINGS);
        let mut event = |after: u64, weight| {
            plan.insert((opens + Duration::from_millis(after), number * 8 + after % 7), (session(number), weight))
        };
        event(0, Weight::Must);
        event(50, Weight::Must);
        event(5_000, Weight::Update);
        event(9_999, Weight::Must);
    }
    let mut recorded: HashMap<SessionId, Vec<i64>> = HashMap::new();
    let (mut plan, mut next_id) = (plan.into_iter().peekable(), 1);
    let mut flights: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut requests: HashMap<u64, Request> = HashMap::new();
    let mut heard: HashMap<SessionId, Vec<i64>> = HashMap::new();
    let (mut probes, mut drained_at) = (0_u64, None);

    while drained_at.is_none() {
        while let Some(((at, _), (of, weight))) = plan.peek().copied() {
            if began + at > now {
                break;
            }
            plan.next();
            spool.put(parcel(next_id, Some(of), weight));
            recorded.entry(of).or_default().push(next_id);
            next_id += 1;
        }
        while teller.room() > 0 {
            let page = spool.page_now(teller.cursor(), teller.room().min(256));
            if page.is_empty() {
                break;
            }
            teller.handle_page(page);
        }
        let dead = now < began + away;
        while let Some(request) = teller.poll_request(now) {
            probes += u64::from(dead);
            let takes = if dead { fails_after } else { Duration::from_millis(10 + dice.below(40)) };
            flights.push(Reverse((now + takes, request.number)));
            requests.insert(request.number, request);
        }
        while let Some(Reverse((at, number))) = flights.peek().copied() {
            if at > now {
                break;
            }
            flights.pop();
            let request = requests.remove(&number).unwrap();
            // What reached it before it died was heard, whatever it answered.
            let alive = now >= began + away;
            if alive {
                for parcel in &request.parcels {
                    heard.entry(parcel.session.unwrap()).or_default().push(parcel.id);
                }
            }
            teller.handle_outcome(now, number, if alive { Outcome::Taken } else { Outcome::Failed { back_off: None } });
        }
        spool.remove(&teller.poll_done());
        assert!(teller.held() <= LIMITS.window);
        if now >= began + away && spool.len() == 0 && plan.peek().is_none() {
            drained_at = Some(now);
        }
        // On to whatever happens next.
        let next = [
            plan.peek().map(|((at, _), _)| began + *at),
            flights.peek().map(|Reverse((at, _))| *at),
            teller.deadline(),
        ];
        now = next.into_iter().flatten().min().unwrap_or(now).max(now + Duration::from_micros(1));
        assert!(
            now < began + away + Duration::from_secs(300),
            "it takes longer than five minutes: {} left",
            spool.len()
        );
    }

    // Nothing is lost and nothing is out of order: each session's starts and stops, each once.
    assert_eq!(heard.len(), recorded.len());
    let mut replaced = 0;
    for (of, ids) in &recorded {
        let heard = &heard[of];
        assert!(heard.is_sorted(), "{heard:?}");
        let missing = ids.iter().filter(|id| !heard.contains(id)).count();
        replaced += missing;
        assert!(missing <= 1 && heard.first() == ids.first() && heard.last() == ids.last(), "{ids:?} {heard:?}");
    }
    assert_eq!(replaced as u64, teller.counts().replaced);
    assert_eq!(teller.counts().given_up, 0);
    assert_eq!(teller.counts().taken as usize, heard.values().map(Vec::len).sum::<usize>());
    // While it was away it was hardly bothered.
    assert!(probes <= away.as_secs() + 200, "{probes} requests in {away:?}");
}

#[test]
fn fa_11_a_receiver_that_is_away_for_an_hour_hears_everything_in_order_within_five_minutes() {
    an_hour_away(HOUR, Duration::from_millis(1));
}

#[test]
fn fa_11_the_same_when_it_hangs_instead_of_refusing() {
    an_hour_away(Duration::from_secs(600), Duration::from_secs(5));
}
