//! Sums whose answer is known beforehand.

use sluicegate::ledger::history::{
    BUCKETS_MAX, CELLS_MAX, Error, Every, Field, Filter, Order, SummaryQuery, TimelineQuery,
};

use crate::days::{Row, row};
use crate::{DAY, DAY_MS, HOUR_MS, ledger};

fn query() -> SummaryQuery {
    SummaryQuery {
        filter: Filter::default(),
        group_by: Vec::new(),
        every: None,
        order: Order::Sessions,
        limit: 100,
        now_ms: DAY + 10 * DAY_MS,
    }
}

/// From ten in the evening to two in the morning.
fn over_midnight() -> Row {
    let mut one = row(1, DAY - 2 * HOUR_MS, Some(DAY + 2 * HOUR_MS));
    one.started_ms = Some(DAY - HOUR_MS);
    one.tx_bytes = 4_000_001;
    one
}

#[test]
fn a_session_over_midnight_counts_once_and_its_time_is_split() {
    let (_folder, reader) = ledger(&[over_midnight()]);
    let days = reader.summary(&SummaryQuery { every: Some(Every::Day), ..query() }).unwrap().total;
    assert_eq!((days.sums.sessions, days.sums.duration_ms, days.sums.watch_ms), (1, 4 * HOUR_MS, 3 * HOUR_MS));
    assert_eq!((days.sums.tx_bytes, days.sums.peak), (4_000_001, Some(1)));
    let [(yesterday, before), (today, after)] = days.times[..] else { panic!("{:?}", days.times) };
    assert_eq!((yesterday, today), (DAY - DAY_MS, DAY));
    assert_eq!((before.sessions, after.sessions), (1, 0));
    assert_eq!((before.duration_ms, after.duration_ms), (2 * HOUR_MS, 2 * HOUR_MS));
    assert_eq!((before.watch_ms, after.watch_ms), (HOUR_MS, 2 * HOUR_MS));
    assert_eq!((before.tx_bytes, after.tx_bytes), (2_000_000, 2_000_001));
    assert_eq!((before.peak, after.peak, after.addresses), (Some(1), Some(1), Some(1)));
    let hours = reader.summary(&SummaryQuery { every: Some(Every::Hour), ..query() }).unwrap().total.times;
    assert_eq!(hours.len(), 4);
    assert_eq!(hours.iter().map(|(_, sums)| sums.tx_bytes).sum::<u64>(), 4_000_001);
}

#[test]
fn ranges_that_follow_each_other_add_up_to_the_whole() {
    let mut rows = vec![over_midnight()];
    rows.extend((0..50).map(|n| {
        let mut one = row(n + 10, DAY - DAY_MS + n * 997_001, Some(DAY + n * 1_700_003));
        one.rx_bytes = 1_000_003 * n;
        one
    }));
    let (_folder, reader) = ledger(&rows);
    let sums = |from, to| {
        let filter = Filter { from_ms: from, to_ms: to, ..Filter::default() };
        reader.summary(&SummaryQuery { filter, ..query() }).unwrap().total.sums
    };
    let whole = sums(None, None);
    let borders = [None, Some(DAY - 3 * HOUR_MS), Some(DAY), Some(DAY + 12_345_678), Some(DAY + 20 * HOUR_MS), None];
    let parts: Vec<_> = borders.windows(2).map(|pair| sums(pair[0], pair[1])).collect();
    for (what, of) in [
        ("rx", (|sums| sums.rx_bytes) as fn(&sluicegate::ledger::history::Sums) -> u64),
        ("tx", |sums| sums.tx_bytes),
        ("duration", |sums| sums.duration_ms),
        ("watch", |sums| sums.watch_ms),
    ] {
        assert_eq!(parts.iter().map(of).sum::<u64>(), of(&whole), "{what}");
    }
    assert_eq!(parts.iter().map(|sums| sums.peak.unwrap()).max(), whole.peak);
}

#[test]
fn a_day_has_24_hours_whatever_the_clocks_on_walls_do() {
    // 2026-03-29T00:00:00Z and 2026-10-25T00:00:00Z: the days on which Europe changes its clocks.
    for day in [1_774_742_400_000, 1_792_886_400_000] {
        let (_folder, reader) = ledger(&[row(1, day - HOUR_MS, Some(day + 25 * HOUR_MS))]);
        let split = |every| reader.summary(&SummaryQuery { every: Some(every), ..query() }).unwrap().total.times;
        let days: Vec<_> = split(Every::Day).iter().map(|(from, sums)| (*from, sums.duration_ms)).collect();
        assert_eq!(days, [(day - DAY_MS, HOUR_MS), (day, DAY_MS), (day + DAY_MS, HOUR_MS)]);
        let hours = split(Every::Hour);
        assert_eq!(hours.len(), 26);
        assert!(hours.windows(2).all(|two| two[1].0 == two[0].0 + HOUR_MS));
        assert!(hours.iter().all(|(_, sums)| sums.duration_ms == HOUR_MS));
    }
}

#[test]
fn groups_beyond_the_limit_are_one() {
    let rows: Vec<_> = (0..10u64)
        .flat_map(|user| {
            (0..=user).map(move |n| {
                let mut one = row(user * 100 + n, DAY + n * 1_000, Some(DAY + n * 1_000 + 500));
                one.user = Some(format!("u{user}"));
                one.tx_bytes = 1_000_000 / (user + 1);
                one
            })
        })
        .collect();
    let (_folder, reader) = ledger(&rows);
    let by_user = SummaryQuery { group_by: vec![Field::User], limit: 3, ..query() };
    let summary = reader.summary(&by_user).unwrap();
    let users = |summary: &sluicegate::ledger::history::Summary| -> Vec<String> {
        summary.groups.iter().map(|group| group.key[0].clone().unwrap()).collect()
    };
    assert_eq!(users(&summary), ["u9", "u8", "u7"]);
    let (groups, other) = summary.other.unwrap();
    assert_eq!((groups, other.sessions, other.peak, other.users), (7, 28, None, None));
    assert_eq!(summary.total.sums.sessions, 55);
    assert_eq!((summary.total.sums.users, summary.total.sums.peak), (Some(10), Some(10)));
    let by_bytes = reader.summary(&SummaryQuery { order: Order::Bytes, limit: 1, ..by_user.clone() }).unwrap();
    assert_eq!(
        by_bytes.groups[0].sums.tx_bytes,
        by_bytes.groups[0].sums.sessions * (1_000_000 / by_bytes.groups[0].sums.sessions)
    );
    assert_eq!(reader.summary(&SummaryQuery { limit: 10, ..by_user }).unwrap().other, None);
}

#[test]
fn more_hours_than_are_kept_apart_are_refused() {
    let hours = CELLS_MAX as u64 + 1;
    let (_folder, reader) = ledger(&[row(1, DAY, Some(DAY + hours * HOUR_MS))]);
    let split = |every| reader.summary(&SummaryQuery { every: Some(every), ..query() });
    assert_eq!(split(Every::Hour).unwrap_err(), Error::TooManyTimes);
    assert_eq!(split(Every::Day).unwrap().total.times.len() as u64, hours.div_ceil(24));
}

#[test]
fn what_runs_has_lasted_until_now_and_moved_what_its_last_checkpoint_says() {
    let mut one = row(1, DAY, None);
    one.updated_ms = DAY + HOUR_MS;
    one.tx_bytes = 3_600;
    let (_folder, reader) = ledger(&[one]);
    let now_ms = DAY + 2 * HOUR_MS;
    let summary = reader.summary(&SummaryQuery { now_ms, every: Some(Every::Hour), ..query() }).unwrap();
    assert_eq!((summary.running, summary.total.sums.duration_ms), (1, 2 * HOUR_MS));
    let bytes: Vec<_> = summary.total.times.iter().map(|(_, sums)| sums.tx_bytes).collect();
    assert_eq!(bytes, [3_600, 0]);
}

#[test]
fn a_timeline_has_a_point_for_every_bucket_and_no_more_than_it_may() {
    let (_folder, reader) = ledger(&[row(1, DAY + HOUR_MS, Some(DAY + HOUR_MS + 90_000))]);
    let draw = |from_ms, to_ms, bucket_ms| {
        let query = TimelineQuery { filter: Filter::default(), from_ms, to_ms, bucket_ms, now_ms: DAY };
        reader.timeline(&query).unwrap()
    };
    let line = draw(DAY + HOUR_MS - 60_000, DAY + HOUR_MS + 150_000, 60_000);
    let points: Vec<_> =
        line.points.iter().map(|point| (point.peak, point.there_ms, point.opened, point.closed)).collect();
    assert_eq!(points, [(0, 0, 0, 0), (1, 60_000, 1, 0), (1, 30_000, 0, 1), (0, 0, 0, 0)]);
    assert_eq!(line.points[3].length_ms, 30_000);
    let line = draw(0, DAY + DAY_MS, 1);
    assert_eq!(line.points.len() as u64, BUCKETS_MAX);
    assert_eq!(line.points.iter().map(|point| point.opened).sum::<u64>(), 1);
    assert_eq!(draw(DAY, DAY, 1).points, []);
    assert_eq!(draw(DAY, 0, 1).points, []);
}
