//! What may be asked of the history, and how it is written.

use std::time::Duration;

use utoipa::IntoParams;

use crate::api::Problem;
use crate::api::native::history::export::Format;
use crate::api::query::{Params, time, unknown};
use crate::control;
use crate::ledger::history::{Every, Field, Filter, Order};
use crate::session::Reason;
use crate::stdx::units::parse_duration;

/// The fields of a filter of the past.
pub const HISTORY_FIELDS: [&str; 11] =
    ["kind", "protocol", "vhost", "app", "stream", "user", "remote", "state", "reason", "from", "to"];
/// A day.
pub(super) const DAY_MS: u64 = 86_400_000;
/// Reasons that may be alternatives of each other.
const REASONS_MAX: usize = 8;
/// Points of a timeline when nobody says how long its buckets are.
const POINTS: u64 = 300;
/// Lengths of buckets that people like, in seconds.
const LENGTHS_S: [u64; 13] = [1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400];

/// The filter of sessions of the past. A comma between alternatives means or, several fields mean and; at most 8
/// alternatives in all, `state` and `reason` not counted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read by the description only, which adds the patterns; the values are read by `filter`.
pub struct HistoryParams {
    /// Sessions of these kinds: `publish`, `play`, `ingest`, `push`.
    #[param(required = false)]
    kind: String,
    /// Sessions of these protocols: `rtmp`.
    #[param(required = false)]
    protocol: String,
    /// Sessions on these virtual hosts.
    #[param(required = false)]
    vhost: String,
    /// Sessions in these applications.
    #[param(required = false)]
    app: String,
    /// Sessions on these streams: the name, or `app/stream`, or `vhost/app/stream`.
    #[param(required = false)]
    stream: String,
    /// Sessions of these users.
    #[param(required = false)]
    user: String,
    /// Sessions from these addresses: an address, an address with port, or a CIDR block.
    #[param(required = false)]
    remote: String,
    /// `open` for those that still run, `closed` for those that have ended.
    #[param(required = false, pattern = "^(open|closed)$")]
    state: String,
    /// Why they ended: reasons such as `kicked`. Running sessions have none.
    #[param(required = false)]
    reason: String,
    /// Only those that were there at this moment or later: a time of RFC 3339, or a date, which is its first moment in
    /// UTC.
    #[param(
        required = false,
        pattern = r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z)?$"
    )]
    from: String,
    /// Only those that were there before this moment, written as `from`.
    #[param(
        required = false,
        pattern = r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z)?$"
    )]
    to: String,
}

/// How sums are grouped.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read by the description only.
pub struct SummaryParams {
    /// By what: `user`, `stream` (in full), `app`, `vhost`, `remote` (the address), `kind`, `protocol`, `reason`. Several
    /// with commas make a group for each combination.
    #[param(required = false, pattern = "^(user|stream|app|vhost|remote|kind|protocol|reason)$")]
    group_by: String,
    /// Into what each group is split: `hour` or `day`, of UTC.
    #[param(required = false, pattern = "^(hour|day)$")]
    every: String,
    /// Which groups come first: those with the most `sessions`, `bytes`, `watch` time, or sessions at once (`peak`).
    #[param(required = false, pattern = "^(sessions|bytes|watch|peak)$", default = "sessions")]
    order: String,
    /// How many groups; more than 1000 is taken for 1000. The others are summed up.
    #[param(required = false, minimum = 1, default = 100)]
    limit: u64,
}

/// How a line is drawn.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read by the description only.
pub struct TimelineParams {
    /// The length of a bucket, as `10s`, `5m` or `1h`. Without it there are at most 300; of more than 2000 fewer and
    /// longer ones are made, and `bucket_ms` says how long.
    #[param(required = false, pattern = "^[1-9][0-9]{0,3}(s|m|h)$")]
    bucket: String,
}

/// How an export is written.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read by the description only.
pub struct ExportParams {
    /// `ndjson`, a line of JSON for each session, or `csv`.
    #[param(required = false, pattern = "^(ndjson|csv)$", default = "ndjson")]
    format: String,
}

/// Makes a filter of its fields.
///
/// # Errors
/// 400 naming the field.
pub fn filter(params: &mut Params) -> Result<Filter, Problem> {
    let mut of_now = control::Filter::default();
    for field in ["kind", "protocol", "vhost", "app", "stream", "user", "remote"] {
        if let Some(value) = params.take(field) {
            of_now.add(field, &value)?;
        }
    }
    let open = match params.take("state").as_deref() {
        None => None,
        Some("open") => Some(true),
        Some("closed") => Some(false),
        Some(_) => return Err(Problem::parameter("state", "write open or closed")),
    };
    let reasons = params.take("reason").map(|text| reasons(&text)).transpose()?.unwrap_or_default();
    let mut moment = |field: &'static str| {
        let read = |text: String| {
            let detail = "write a time as 2026-11-20T17:30:00Z, with an offset as 2026-11-20T18:30:00+01:00, or a date \
                          as 2026-11-20, which begins at midnight of UTC";
            time(&text).ok_or_else(|| Problem::parameter(field, detail))
        };
        params.take(field).map(read).transpose()
    };
    let (from_ms, to_ms) = (moment("from")?, moment("to")?);
    if from_ms.zip(to_ms).is_some_and(|(from, to)| from > to) {
        return Err(Problem::parameter("from", "this is later than `to`: nothing is between them"));
    }
    Ok(Filter {
        kinds: of_now.kinds,
        protocols: of_now.protocols,
        vhosts: of_now.vhosts,
        apps: of_now.apps,
        streams: of_now.streams,
        users: of_now.users,
        remotes: of_now.remotes,
        reasons,
        open,
        from_ms,
        to_ms,
    })
}

fn reasons(text: &str) -> Result<Vec<Reason>, Problem> {
    let mut found = Vec::new();
    for name in text.split(',') {
        let reason = Reason::ALL.iter().find(|reason| reason.as_str() == name);
        let all = || Reason::ALL.iter().map(|reason| reason.as_str());
        found.push(*reason.ok_or_else(|| Problem::parameter("reason", unknown(name, all())))?);
        if found.len() > REASONS_MAX {
            return Err(Problem::parameter("reason", format!("more than {REASONS_MAX} reasons")));
        }
    }
    Ok(found)
}

const FIELDS: [(&str, Field); 8] = [
    ("user", Field::User),
    ("stream", Field::Stream),
    ("app", Field::App),
    ("vhost", Field::Vhost),
    ("remote", Field::Remote),
    ("kind", Field::Kind),
    ("protocol", Field::Protocol),
    ("reason", Field::Reason),
];

pub(super) fn group_by(text: Option<&str>) -> Result<Vec<Field>, Problem> {
    let mut found = Vec::new();
    for name in text.into_iter().flat_map(|text| text.split(',')) {
        let field = one_of("group_by", &FIELDS, name)?;
        if found.contains(&field) {
            return Err(Problem::parameter("group_by", format!("`{name}` is there twice")));
        }
        found.push(field);
    }
    Ok(found)
}

pub(super) fn every(text: Option<String>) -> Result<Option<Every>, Problem> {
    text.map(|text| one_of("every", &[("hour", Every::Hour), ("day", Every::Day)], &text)).transpose()
}

pub(super) fn order(text: Option<String>) -> Result<Order, Problem> {
    let orders =
        [("sessions", Order::Sessions), ("bytes", Order::Bytes), ("watch", Order::Watch), ("peak", Order::Peak)];
    text.map_or(Ok(Order::default()), |text| one_of("order", &orders, &text))
}

pub(super) fn format(text: Option<String>) -> Result<Format, Problem> {
    let formats = [("ndjson", Format::Ndjson), ("csv", Format::Csv)];
    text.map_or(Ok(Format::Ndjson), |text| one_of("format", &formats, &text))
}

pub(super) fn bucket(text: Option<String>) -> Result<Option<u64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let length = parse_duration(&text).map_err(|message| Problem::parameter("bucket", message))?;
    if length < Duration::from_secs(1) {
        return Err(Problem::parameter("bucket", "a bucket is at least 1 s long"));
    }
    Ok(Some(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
}

/// A length of buckets for a line of `range_ms`.
pub(super) fn bucket_for(range_ms: u64) -> u64 {
    let fits = LENGTHS_S.into_iter().map(|length| length * 1_000).find(|length| range_ms.div_ceil(*length) <= POINTS);
    fits.unwrap_or_else(|| range_ms.div_ceil(POINTS).next_multiple_of(DAY_MS))
}

fn one_of<T: Copy>(field: &'static str, all: &[(&str, T)], name: &str) -> Result<T, Problem> {
    let found = all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| Problem::parameter(field, unknown(name, all.iter().map(|(known, _)| *known))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::remote::Remote;

    fn read(query: &str) -> Result<Filter, Problem> {
        filter(&mut Params::parse(Some(query), &[&HISTORY_FIELDS]).unwrap())
    }

    #[test]
    fn a_filter_is_read_as_the_one_of_now_with_times_and_reasons() {
        let found =
            read("kind=play&remote=::ffff:192.0.2.7&reason=kicked,banned&state=closed&from=2026-11-20").unwrap();
        assert_eq!(found.remotes, [Remote::Address("192.0.2.7".parse().unwrap())]);
        assert_eq!((found.reasons, found.open), (vec![Reason::Kicked, Reason::Banned], Some(false)));
        assert_eq!((found.from_ms, found.to_ms), (Some(1_795_132_800_000), None));
        assert_eq!(read("").unwrap(), Filter::default());
    }

    #[test]
    fn a_time_that_ends_before_it_begins_is_refused() {
        let problem = read("from=2026-11-21&to=2026-11-20").unwrap_err();
        assert_eq!((problem.field.as_deref(), problem.detail.contains("`to`")), (Some("from"), true), "{problem:?}");
        assert!(read("from=2026-11-20&to=2026-11-20").is_ok(), "a moment that is none is empty and no mistake");
    }

    #[test]
    fn ap_06_a_hostile_filter_is_refused_by_name() {
        let (long, many) = ("a".repeat(1 << 20), ["kicked"; 9].join(","));
        for (field, value) in [
            ("app", long.as_str()),
            ("reason", &long),
            ("reason", &many),
            ("reason", ""),
            ("reason", "kick"),
            ("reason", "kicked,"),
            ("state", "finished"),
            ("user", "a%0ab"),
            ("stream", "a/../b"),
            ("from", "yesterday"),
            ("from", ""),
            ("to", "2026-02-30"),
            ("to", &long),
        ] {
            let shown = &value[..value.len().min(20)];
            assert_eq!(read(&format!("{field}={value}")).unwrap_err().field.as_deref(), Some(field), "{field}={shown}");
        }
    }

    #[test]
    fn buckets_are_of_lengths_that_people_like() {
        for (range_s, length_s) in
            [(0, 1), (300, 1), (301, 5), (86_400, 300), (7 * 86_400, 3_600), (90 * 86_400, 43_200)]
        {
            assert_eq!(bucket_for(range_s * 1_000), length_s * 1_000, "{range_s}");
        }
        assert_eq!(bucket_for(1_000 * DAY_MS), 4 * DAY_MS);
        assert_eq!(bucket(Some("999ms".into())).unwrap_err().field.as_deref(), Some("bucket"));
        assert_eq!(bucket(Some("90s".into())), Ok(Some(90_000)));
    }
}
