//! The history against a model that looks at every row for every question.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sluicegate::ledger::history::{Every, Field, Filter, Order, Record, SummaryQuery, Sums, TimelineQuery};
use sluicegate::names::{Kind, SessionId};
use sluicegate::session::Reason;
use sluicegate::stdx::remote::Remote;

use crate::days::{self, Row};
use crate::{DAY, DAY_MS, HOUR_MS, ledger};

/// Three days are in the files; running sessions have lasted until the end of them.
const NOW: u64 = DAY + 3 * DAY_MS;

/// Small numbers of everything, so that things meet.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let one = (
        (0..3 * DAY_MS / 1_000, 0..600_000u64, prop_oneof![Just(0), 1..5_000u64, 1..(2 * DAY_MS)]),
        (0..4usize, 0..3usize, 0..3usize, 0..4usize, 0..4u8),
        (0..1_000_000_007u64, 0..3u64, any::<bool>(), 0..10u8),
    );
    prop::collection::vec(one, 0..60).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(n, (times, names, numbers))| {
                let (at, delay, lasts) = times;
                let (kind, app, stream, user, remote) = names;
                let (bytes, few, has_media, generation) = numbers;
                let asked = DAY + at * 1_000;
                // What opened yesterday may ask only today; its id says when it asked.
                let opened = asked - delay;
                let closed = (asked + lasts < NOW).then_some(asked + lasts);
                let mut row = days::row(n as u64, asked, closed);
                row.opened_ms = opened;
                row.kind = ["publish", "play", "play", "push"][kind];
                row.app = ["live", "a/b", "vod"][app].into();
                row.stream = ["cam", "b/cam", "s"][stream].into();
                row.vhost = if few == 0 { "a".into() } else { "default".into() };
                row.user = [None, Some("ann"), Some("bob"), Some("")][user].map(str::to_owned);
                row.remote_ip = ["198.51.100.4", "198.51.100.77", "203.0.113.9", "2001:db8::1"][remote as usize].into();
                row.remote_port = 40_000 + few as u16;
                row.started_ms = has_media.then_some(asked.min(closed.unwrap_or(asked)));
                row.updated_ms = closed.unwrap_or((asked + lasts).min(NOW));
                row.rx_bytes = bytes;
                row.tx_bytes = bytes % 1_000 * few;
                row.reason = closed.map(|_| ["client_done", "kicked", "server_crash"][few as usize]);
                row.generation = u8::from(generation == 0);
                row
            })
            .collect()
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    let some = |all: &'static [&'static str]| {
        prop::collection::vec(prop::sample::select(all), 0..3)
            .prop_map(|names| names.into_iter().map(str::to_owned).collect::<Vec<String>>())
    };
    let rarely = |names: BoxedStrategy<Vec<String>>| prop_oneof![2 => Just(Vec::new()), 1 => names];
    let remotes = prop::collection::vec(
        prop::sample::select(vec![
            Remote::Address("198.51.100.4".parse().unwrap()),
            Remote::Socket("198.51.100.77:40001".parse().unwrap()),
            Remote::Block("198.51.100.0/25".parse().unwrap()),
            Remote::Block("2001:db8::1/128".parse().unwrap()),
        ]),
        0..3,
    );
    let times = (prop::option::of(0..4 * DAY_MS), prop::option::of(0..4 * DAY_MS), prop::option::of(any::<bool>()));
    (
        rarely(some(&["default", "a", "none"]).boxed()),
        rarely(some(&["live", "a/b", "vod"]).boxed()),
        rarely(some(&["cam", "b/cam", "s", "a/b/cam", "default/live/cam", "a/live/s", "none"]).boxed()),
        rarely(some(&["ann", "bob", "", "none"]).boxed()),
        prop_oneof![2 => Just(Vec::new()), 1 => remotes],
        prop_oneof![3 => Just(Vec::new()), 1 => Just(vec![Kind::Play]), 1 => Just(vec![Kind::Publish, Kind::Push])],
        prop_oneof![4 => Just(Vec::new()), 1 => Just(vec![Reason::Kicked, Reason::ServerCrash])],
        times,
    )
        .prop_map(|(vhosts, apps, streams, users, remotes, kinds, reasons, (from, to, open))| Filter {
            kinds,
            protocols: Vec::new(),
            vhosts,
            apps,
            streams,
            users,
            remotes,
            reasons,
            open,
            from_ms: from.map(|from| DAY + from),
            to_ms: to.map(|to| DAY + to),
        })
}

/// When a row was there; what was over at once was there for a millisecond.
fn there(row: &Row) -> (u64, u64) {
    (row.opened_ms, row.closed_ms.unwrap_or(NOW).max(row.opened_ms + 1))
}

fn meant(filter: &Filter, row: &Row) -> bool {
    fn any<T>(of: &[T], is: impl Fn(&T) -> bool) -> bool {
        of.is_empty() || of.iter().any(is)
    }
    let until = row.closed_ms.map_or(u64::MAX, |closed| closed.max(row.opened_ms + 1));
    let paths = [
        row.stream.clone(),
        format!("{}/{}", row.app, row.stream),
        format!("{}/{}/{}", row.vhost, row.app, row.stream),
    ];
    any(&filter.kinds, |kind| kind.as_str() == row.kind)
        && any(&filter.vhosts, |name| *name == row.vhost)
        && any(&filter.apps, |name| *name == row.app)
        && any(&filter.streams, |path| paths.contains(path))
        && any(&filter.users, |name| Some(name) == row.user.as_ref())
        && any(&filter.reasons, |reason| Some(reason.as_str()) == row.reason)
        && any(&filter.remotes, |remote| match remote {
            Remote::Address(address) => address.to_string() == row.remote_ip,
            Remote::Socket(socket) => socket.ip().to_string() == row.remote_ip && socket.port() == row.remote_port,
            Remote::Block(block) => block.contains(&row.remote_ip.parse::<std::net::IpAddr>().unwrap()),
        })
        && filter.open.is_none_or(|open| open == row.closed_ms.is_none())
        && filter.from_ms.is_none_or(|from| until > from)
        && filter.to_ms.is_none_or(|to| row.opened_ms < to)
        && filter.from_ms.is_none_or(|from| filter.to_ms.is_none_or(|to| from < to))
}

fn overlap(one: (u64, u64), other: (u64, u64)) -> u64 {
    one.1.min(other.1).saturating_sub(one.0.max(other.0))
}

/// What of `total`, spread evenly over `span`, was there before `at`.
fn before(span: (u64, u64), at: u64, total: u64) -> u64 {
    if at > span.0 && at >= span.1 {
        total
    } else if at <= span.0 {
        0
    } else {
        (u128::from(total) * u128::from(at - span.0) / u128::from(span.1 - span.0)) as u64
    }
}

fn bytes_in(row: &Row, range: (u64, u64), total: u64) -> u64 {
    let span = (row.opened_ms, row.closed_ms.unwrap_or(row.updated_ms).max(row.opened_ms));
    before(span, range.1, total) - before(span, range.0, total)
}

/// The sums of `rows` in `range`, where those in `first` count as sessions.
fn sums(rows: &[&Row], range: (u64, u64), counts: impl Fn(&Row) -> bool) -> Sums {
    let mut sum = Sums::default();
    let (mut users, mut addresses, mut peak) = (BTreeSet::new(), BTreeSet::new(), 0);
    for row in rows {
        let life = (row.opened_ms, row.closed_ms.unwrap_or(NOW));
        sum.sessions += u64::from(counts(row));
        sum.rx_bytes += bytes_in(row, range, row.rx_bytes);
        sum.tx_bytes += bytes_in(row, range, row.tx_bytes);
        sum.duration_ms += overlap(life, range);
        if let (true, Some(started)) = (row.kind == "play", row.started_ms) {
            sum.watch_ms += overlap((started, life.1), range);
        }
        users.extend(row.user.clone());
        addresses.insert(row.remote_ip.clone());
        // Most are there when somebody has just come, or when the range begins.
        let moment = row.opened_ms.max(range.0);
        peak = peak.max(rows.iter().filter(|other| overlap(there(other), (moment, moment + 1)) > 0).count() as u64);
    }
    sum.peak = Some(peak);
    sum.users = Some(users.len() as u64);
    sum.addresses = Some(addresses.len() as u64);
    sum
}

fn key(row: &Row, group_by: &[Field]) -> Vec<Option<String>> {
    let mut key = Vec::new();
    for field in group_by {
        match field {
            Field::User => key.push(row.user.clone()),
            Field::Stream => {
                key.extend([&row.vhost, &row.app, &row.stream].map(|name| Some(name.clone())));
            }
            Field::App => key.push(Some(row.app.clone())),
            Field::Vhost => key.push(Some(row.vhost.clone())),
            Field::Remote => key.push(Some(row.remote_ip.clone())),
            Field::Kind => key.push(Some(row.kind.to_owned())),
            Field::Protocol => key.push(Some("rtmp".to_owned())),
            Field::Reason => key.push(row.reason.map(str::to_owned)),
        }
    }
    key
}

fn times(rows: &[&Row], range: (u64, u64), step: u64) -> Vec<(u64, Sums)> {
    let first = |row: &Row| row.opened_ms.max(range.0) / step;
    let mut buckets = BTreeSet::new();
    for row in rows {
        let (from, to) = there(row);
        buckets.extend(from.max(range.0) / step..=(to.min(range.1) - 1) / step);
    }
    buckets
        .into_iter()
        .map(|bucket| {
            let part = ((bucket * step).max(range.0), ((bucket + 1) * step).min(range.1));
            let here: Vec<&Row> = rows.iter().copied().filter(|row| overlap(there(row), part) > 0).collect();
            (bucket * step, sums(&here, part, |row| first(row) == bucket))
        })
        .collect()
}

fn fields() -> impl Strategy<Value = Vec<Field>> {
    let all = [
        Field::User,
        Field::Stream,
        Field::App,
        Field::Vhost,
        Field::Remote,
        Field::Kind,
        Field::Protocol,
        Field::Reason,
    ];
    prop::sample::subsequence(all.to_vec(), 0..3)
}

fn matches(record: &Record, row: &Row) -> bool {
    record.id.as_u128() == row.id
        && (record.opened_ms, record.closed_ms) == (row.opened_ms, row.closed_ms)
        && (record.rx_bytes, record.tx_bytes) == (row.rx_bytes, row.tx_bytes)
        && record.user == row.user
        && (&record.app, &record.stream, &record.remote_ip) == (&row.app, &row.stream, &row.remote_ip)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn pages_have_every_session_that_is_meant_once_and_in_order(rows in rows(), filter in filters(), limit in 1..7usize) {
        let (_folder, reader) = ledger(&rows);
        let mut expected: Vec<&Row> = rows.iter().filter(|row| meant(&filter, row)).collect();
        expected.sort_by_key(|row| std::cmp::Reverse(row.id));
        let (mut found, mut after) = (Vec::new(), None::<SessionId>);
        loop {
            let page = reader.sessions(&filter, after, limit).unwrap();
            prop_assert!(page.records.len() <= limit);
            found.extend(page.records);
            after = page.after;
            if after.is_none() {
                break;
            }
        }
        prop_assert_eq!(found.len(), expected.len(), "{:?}", filter);
        for (record, row) in found.iter().zip(expected) {
            prop_assert!(matches(record, row), "{:?}\n{:?}", record, row);
        }
    }

    #[test]
    fn sums_agree_with_the_model(
        rows in rows(),
        filter in filters(),
        group_by in fields(),
        every in prop::sample::select(vec![None, Some(Every::Hour), Some(Every::Day)]),
    ) {
        let (_folder, reader) = ledger(&rows);
        let range = (filter.from_ms.unwrap_or(0), filter.to_ms.unwrap_or(u64::MAX));
        let meant: Vec<&Row> =
            rows.iter().filter(|row| meant(&filter, row) && overlap(there(row), range) > 0).collect();
        let query =
            SummaryQuery { filter, group_by: group_by.clone(), every, order: Order::Sessions, limit: 1_000, now_ms: NOW };
        let summary = reader.summary(&query).unwrap();
        let step = every.map(|every| if every == Every::Hour { HOUR_MS } else { DAY_MS });
        let split = |rows: &[&Row]| step.map_or(Vec::new(), |step| times(rows, range, step));
        prop_assert_eq!(summary.total.sums, sums(&meant, range, |_| true));
        prop_assert_eq!(&summary.total.times, &split(&meant));
        prop_assert_eq!(summary.running, meant.iter().filter(|row| row.closed_ms.is_none()).count() as u64);
        let mut groups: BTreeMap<Vec<Option<String>>, Vec<&Row>> = BTreeMap::new();
        if !group_by.is_empty() {
            for row in &meant {
                groups.entry(key(row, &group_by)).or_default().push(row);
            }
        }
        prop_assert_eq!(summary.groups.len(), groups.len());
        for group in &summary.groups {
            let rows = &groups[&group.key];
            prop_assert_eq!(group.sums, sums(rows, range, |_| true), "{:?}", group.key);
            prop_assert_eq!(&group.times, &split(rows), "{:?}", group.key);
        }
        prop_assert!(summary.groups.windows(2).all(|two| two[0].sums.sessions >= two[1].sums.sessions));
        prop_assert_eq!(summary.other, None);
    }

    #[test]
    fn the_timeline_agrees_with_the_model(
        rows in rows(),
        filter in filters(),
        from in 0..3 * DAY_MS,
        length in 0..DAY_MS,
        bucket in prop::sample::select(vec![60_000, 999_983, HOUR_MS]),
    ) {
        let (_folder, reader) = ledger(&rows);
        let range = (DAY + from, DAY + from + length);
        let filter = Filter { from_ms: None, to_ms: None, ..filter };
        let query =
            TimelineQuery { filter: filter.clone(), from_ms: range.0, to_ms: range.1, bucket_ms: bucket, now_ms: NOW };
        let timeline = reader.timeline(&query).unwrap();
        let rows: Vec<&Row> =
            rows.iter().filter(|row| meant(&filter, row) && overlap(there(row), range) > 0).collect();
        prop_assert_eq!(timeline.points.len() as u64, length.div_ceil(bucket));
        for point in &timeline.points {
            let part = (point.from_ms, (point.from_ms + bucket).min(range.1));
            prop_assert_eq!(point.length_ms, part.1 - part.0);
            let here: Vec<&Row> = rows.iter().copied().filter(|row| overlap(there(row), part) > 0).collect();
            let expected = sums(&here, part, |_| true);
            prop_assert_eq!(Some(point.peak), if here.is_empty() { Some(0) } else { expected.peak });
            prop_assert_eq!(point.there_ms, expected.duration_ms);
            let within = |at: u64| at >= part.0 && at < part.1;
            prop_assert_eq!(point.opened, here.iter().filter(|row| within(row.opened_ms)).count() as u64);
            let closed = rows.iter().filter(|row| row.closed_ms.is_some_and(within));
            prop_assert_eq!(point.closed, closed.count() as u64);
            // Each share may be a byte off between the first and the last bucket of a session.
            let off = here.len() as u64 + 1;
            prop_assert!(point.rx_bytes.abs_diff(expected.rx_bytes) <= off, "{} {}", point.rx_bytes, expected.rx_bytes);
            prop_assert!(point.tx_bytes.abs_diff(expected.tx_bytes) <= off);
        }
    }
}
