//! Goes through the sessions that a filter means, in the order of their ids, which is the order of opening.
//!
//! The files are those of the days on which sessions opened, so one is done before the next begins. In a file the way
//! leads along the index of what the filter names: users, else streams, else addresses, else running sessions; else
//! along all rows. Of several names each has a statement of its own and the rows are merged, so that the next row is
//! always found and never sorted for. What else the filter says is looked at row by row, and here, so that whoever
//! walks knows how far they came.
//!
//! Sessions that were there in a range of time opened in it, or before it and were *carried over* into it. The
//! latter are found by the index of ends: there are as many as were there at the range's first moment.

use std::collections::{BTreeSet, BinaryHeap};
use std::ops::ControlFlow;

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator as _;
use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Rows, params_from_iter};

use crate::ledger::history::filter::{Reading, readings};
use crate::ledger::history::life::SKEW_MS;
use crate::ledger::history::pool::{Lease, failed};
use crate::ledger::history::row::{Record, Sight, WIDE, is_on};
use crate::ledger::history::{Error, Filter, Reader};
use crate::ledger::{Day, FileKey};

/// Ways to read the streams of a filter; with more, which no names have, all rows are gone through.
const READINGS_MAX: usize = 32;
/// Streams of one name in different applications whose rows are merged; with more, all rows are gone through: such a
/// name is on so many of them that they come soon.
const STREAMS_MAX: usize = 256;
/// Rows between two looks at the time.
const ROWS_BETWEEN_LOOKS: u32 = 256;

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The oldest first.
    Ascending,
    /// The newest first.
    Descending,
}

/// Ids from one to before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ids {
    from: u128,
    to: u128,
}

/// A way through a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    /// All rows.
    All,
    /// Those that run.
    Open,
    /// Those of a user.
    User(String),
    /// Those on a stream: stream, app, vhost.
    Stream(String, String, String),
    /// Those from an address.
    Remote(String),
}

/// What a visitor says of a row: go on, or stop.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&Sight<'_>, bool) -> Result<ControlFlow<()>, Trouble>;

/// Why a visitor could not do with a row.
pub(super) enum Trouble {
    /// It cannot be read.
    Row(rusqlite::Error),
    /// Anything else.
    Other(Error),
}

impl Reader {
    /// Shows `visit` the rows that may be meant by `filter`, with their ids before `before` when it is given, and
    /// whether they are meant. `columns` are [`NARROW`](super::row::NARROW) or [`WIDE`](super::row::WIDE).
    pub(super) fn walk(
        &self,
        filter: &Filter,
        direction: Direction,
        before: Option<u128>,
        columns: &str,
        visit: Visit<'_>,
    ) -> Result<(), Error> {
        if let (Some(from), Some(to)) = (filter.from_ms, filter.to_ms)
            && from >= to
        {
            return Ok(());
        }
        let split = filter.from_ms.map_or(0, first_id);
        let last = filter.to_ms.map_or(u128::MAX, |to| first_id(to.saturating_add(SKEW_MS)));
        let last = last.min(before.unwrap_or(u128::MAX));
        let walk = Walk { reader: self, filter, direction, columns, from_day: filter.from_ms.map(Day::of_unix_ms) };
        let files = self.pool.list();
        let mut days: Vec<&[FileKey]> = files.chunk_by(|one, other| one.day == other.day).collect();
        if direction == Direction::Descending {
            days.reverse();
        }
        for generations in days {
            let Some(day) = generations.first().map(|file| file.day) else { continue };
            let all = Ids {
                from: first_id(day.begins_unix_ms()),
                to: first_id(Day(day.0.saturating_add(1)).begins_unix_ms()),
            };
            let all = all.within(Ids { from: 0, to: last });
            if all.is_empty() {
                continue;
            }
            // The file that was given up says less than the one that followed it.
            let mut leases = Vec::new();
            for file in generations.iter().rev() {
                leases.extend(self.pool.lease(*file, &self.patience)?);
            }
            let parts = [all.within(Ids { from: 0, to: split }), all.within(Ids { from: split, to: u128::MAX })];
            let [carried, opened] = parts;
            let mut steps = [(carried, true), (opened, false)];
            if direction == Direction::Descending {
                steps.reverse();
            }
            for (ids, is_carried) in steps {
                if !ids.is_empty() && walk.day(day, &leases, ids, is_carried, visit)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The session with this id, from the last of its day's files that has it.
    pub(super) fn look_up(&self, id: u128) -> Result<Option<Record>, Error> {
        let day = Day::of_unix_ms(u64::try_from(id >> 80).unwrap_or(0));
        let files = self.pool.list();
        for file in files.into_iter().rev().filter(|file| file.day == day) {
            let Some(lease) = self.pool.lease(file, &self.patience)? else { continue };
            let read = || {
                let mut statement = lease.prepare_cached(&sql::one(WIDE))?;
                statement.query_row([blob(id)], |row| Sight(row).record()).optional()
            };
            let found = read().map_err(|error| self.wrong(file, &error))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What went wrong: the time, if it ran out, or the file.
    pub(super) fn wrong(&self, file: FileKey, error: &rusqlite::Error) -> Error {
        self.patience.check().err().unwrap_or_else(|| failed(file, error))
    }
}

struct Walk<'a> {
    reader: &'a Reader,
    filter: &'a Filter,
    direction: Direction,
    columns: &'a str,
    from_day: Option<Day>,
}

impl Walk<'_> {
    fn day(
        &self,
        day: Day,
        leases: &[Lease<'_>],
        ids: Ids,
        is_carried: bool,
        visit: Visit<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let mut paths = Vec::new();
        for (at, lease) in leases.iter().enumerate() {
            let found = self.paths(lease).map_err(|error| self.reader.wrong(lease.file(), &error))?;
            paths.extend(found.into_iter().map(|path| (at, path)));
        }
        // An index of names has all that somebody did on the day; before the day on which the range begins, what was
        // carried over is the shorter way.
        if paths.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let by_name = paths.iter().all(|(_, path)| *path != Path::All);
        if is_carried && !(by_name && self.from_day == Some(day)) {
            return self.carried(leases, ids, visit);
        }
        self.merged(leases, &paths, ids, visit)
    }

    /// The ways through one file that together pass every row that may be meant, and none twice.
    fn paths(&self, file: &Connection) -> rusqlite::Result<Vec<Path>> {
        let filter = self.filter;
        if !filter.users.is_empty() {
            let users: BTreeSet<&String> = filter.users.iter().collect();
            return Ok(users.into_iter().map(|user| Path::User(user.clone())).collect());
        }
        if !filter.streams.is_empty() {
            let streams = self.streams(file)?;
            return Ok(streams.unwrap_or_else(|| vec![Path::All]));
        }
        let addresses: Option<BTreeSet<String>> =
            filter.remotes.iter().map(|remote| remote.address().map(|address| address.to_string())).collect();
        match addresses {
            Some(addresses) if !addresses.is_empty() => Ok(addresses.into_iter().map(Path::Remote).collect()),
            _ if filter.open == Some(true) => Ok(vec![Path::Open]),
            _ => Ok(vec![Path::All]),
        }
    }

    /// The streams that there are in one file and that the filter means; `None` for too many.
    fn streams(&self, file: &Connection) -> rusqlite::Result<Option<Vec<Path>>> {
        let Some(readings) = self.readings() else { return Ok(None) };
        let mut found = BTreeSet::new();
        for reading in readings {
            let mut next = next_stream(file, &reading, "", "")?;
            while let Some((app, vhost)) = next {
                if is_on(self.filter, &vhost, &app, &reading.stream) {
                    found.insert((reading.stream.clone(), app.clone(), vhost.clone()));
                }
                if found.len() > STREAMS_MAX {
                    return Ok(None);
                }
                next = next_stream(file, &reading, &app, &vhost)?;
            }
        }
        Ok(Some(found.into_iter().map(|(stream, app, vhost)| Path::Stream(stream, app, vhost)).collect()))
    }

    /// Every way to read the filter's streams, with what it says of applications and hosts.
    fn readings(&self) -> Option<BTreeSet<Reading>> {
        let filter = self.filter;
        let choices = |names: &[String]| -> Vec<Option<String>> {
            if names.is_empty() { vec![None] } else { names.iter().cloned().map(Some).collect() }
        };
        let mut found = BTreeSet::new();
        for path in &filter.streams {
            for reading in readings(path, READINGS_MAX)? {
                let apps = if reading.app.is_some() { vec![reading.app] } else { choices(&filter.apps) };
                let vhosts = if reading.vhost.is_some() { vec![reading.vhost] } else { choices(&filter.vhosts) };
                for app in &apps {
                    for vhost in &vhosts {
                        let stream = reading.stream.clone();
                        found.insert(Reading { stream, app: app.clone(), vhost: vhost.clone() });
                    }
                }
                if found.len() > READINGS_MAX {
                    return None;
                }
            }
        }
        Some(found)
    }

    /// Rows of several statements, in the order of their ids.
    fn merged(
        &self,
        leases: &[Lease<'_>],
        paths: &[(usize, Path)],
        ids: Ids,
        visit: Visit<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let wrong = |at: usize, error: &rusqlite::Error| self.reader.wrong(leases[at].file(), error);
        let mut statements: Vec<(usize, CachedStatement<'_>)> = Vec::with_capacity(paths.len());
        for (at, path) in paths {
            let text = path.sql(self.columns, self.direction);
            statements.push((*at, leases[*at].prepare_cached(&text).map_err(|error| wrong(*at, &error))?));
        }
        let mut running: Vec<(usize, Rows<'_>)> = Vec::with_capacity(paths.len());
        let mut heads = BinaryHeap::with_capacity(paths.len());
        for ((at, statement), (_, path)) in statements.iter_mut().zip(paths) {
            let mut rows = statement.query(params_from_iter(path.values(ids))).map_err(|error| wrong(*at, &error))?;
            rows.advance().map_err(|error| wrong(*at, &error))?;
            if let Some(row) = rows.get() {
                let id = Sight(row).id().map_err(|error| wrong(*at, &error))?;
                heads.push((self.rank(id), running.len()));
                running.push((*at, rows));
            }
        }
        let mut looked_at = 0u32;
        while let Some((_, which)) = heads.pop() {
            let (at, rows) = &mut running[which];
            let Some(row) = rows.get() else { continue };
            let sight = Sight(row);
            if self.is_newest(leases, *at, &sight)? {
                let meant = sight.matches(self.filter).map_err(|error| wrong(*at, &error))?;
                if self.told(*at, leases, visit(&sight, meant))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            looked_at = looked_at.wrapping_add(1);
            if looked_at.is_multiple_of(ROWS_BETWEEN_LOOKS) {
                self.reader.patience.check()?;
            }
            rows.advance().map_err(|error| wrong(*at, &error))?;
            if let Some(row) = rows.get() {
                heads.push((self.rank(Sight(row).id().map_err(|error| wrong(*at, &error))?), which));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Rows that were there when the range began.
    fn carried(&self, leases: &[Lease<'_>], ids: Ids, visit: Visit<'_>) -> Result<ControlFlow<()>, Error> {
        let mut found = Vec::new();
        for (at, lease) in leases.iter().enumerate() {
            let wrong = |error: rusqlite::Error| self.reader.wrong(lease.file(), &error);
            let from = i64::try_from(self.filter.from_ms.unwrap_or(0)).unwrap_or(i64::MAX);
            let mut closed = lease.prepare_cached(sql::CARRIED_CLOSED).map_err(wrong)?;
            let mut open = lease.prepare_cached(sql::CARRIED_OPEN).map_err(wrong)?;
            let open_rows = open.query((blob(ids.from), blob(ids.to))).map_err(wrong)?;
            let closed_rows = match self.filter.open {
                Some(true) => None,
                _ => Some(closed.query((blob(ids.from), blob(ids.to), from)).map_err(wrong)?),
            };
            for mut rows in closed_rows.into_iter().chain([open_rows]) {
                while let Some(row) = rows.next().map_err(wrong)? {
                    found.push((Sight(row).id().map_err(wrong)?, at));
                }
            }
        }
        found.sort_unstable();
        if self.direction == Direction::Descending {
            found.reverse();
        }
        let text = sql::one(self.columns);
        for (id, at) in found {
            let wrong = |error: rusqlite::Error| self.reader.wrong(leases[at].file(), &error);
            let mut statement = leases[at].prepare_cached(&text).map_err(wrong)?;
            let mut rows = statement.query([blob(id)]).map_err(wrong)?;
            let Some(row) = rows.next().map_err(wrong)? else { continue };
            let sight = Sight(row);
            if self.is_newest(leases, at, &sight)? {
                let meant = sight.matches(self.filter).map_err(wrong)?;
                if self.told(at, leases, visit(&sight, meant))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What a visitor said of a row of this file.
    fn told(
        &self,
        at: usize,
        leases: &[Lease<'_>],
        said: Result<ControlFlow<()>, Trouble>,
    ) -> Result<ControlFlow<()>, Error> {
        said.map_err(|trouble| match trouble {
            Trouble::Row(error) => self.reader.wrong(leases[at].file(), &error),
            Trouble::Other(error) => error,
        })
    }

    /// Whether no later file of the same day has a row of this session, which then would be what holds.
    fn is_newest(&self, leases: &[Lease<'_>], at: usize, sight: &Sight<'_>) -> Result<bool, Error> {
        // Later files come first.
        for lease in &leases[..at] {
            let wrong = |error: rusqlite::Error| self.reader.wrong(lease.file(), &error);
            let id = sight.id().map_err(wrong)?;
            let mut statement = lease.prepare_cached(sql::EXISTS).map_err(wrong)?;
            if statement.exists([blob(id)]).map_err(wrong)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A heap gives the greatest first.
    fn rank(&self, id: u128) -> u128 {
        match self.direction {
            Direction::Descending => id,
            Direction::Ascending => !id,
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Row(error)
    }
}

impl Path {
    fn sql(&self, columns: &str, direction: Direction) -> String {
        let (index, condition) = match self {
            Self::All => ("", ""),
            Self::Open => (" INDEXED BY session_open", "closed_ms IS NULL AND "),
            Self::User(_) => (" INDEXED BY session_user", "user = ?3 AND "),
            Self::Stream(..) => (" INDEXED BY session_stream", "stream = ?3 AND app = ?4 AND vhost = ?5 AND "),
            Self::Remote(_) => (" INDEXED BY session_remote", "remote_ip = ?3 AND "),
        };
        let direction = match direction {
            Direction::Ascending => "ASC",
            Direction::Descending => "DESC",
        };
        format!("SELECT {columns} FROM session{index} WHERE {condition}id >= ?1 AND id < ?2 ORDER BY id {direction}")
    }

    fn values(&self, ids: Ids) -> Vec<Value> {
        let mut values = vec![blob(ids.from), blob(ids.to)];
        match self {
            Self::All | Self::Open => {}
            Self::User(name) | Self::Remote(name) => values.push(Value::Text(name.clone())),
            Self::Stream(stream, app, vhost) => {
                values.extend([stream, app, vhost].map(|name| Value::Text(name.clone())));
            }
        }
        values
    }
}

impl Ids {
    fn within(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    fn is_empty(self) -> bool {
        self.from >= self.to
    }
}

/// The stream of this reading that follows `app` and `vhost` in the index.
fn next_stream(
    file: &Connection,
    reading: &Reading,
    app: &str,
    vhost: &str,
) -> rusqlite::Result<Option<(String, String)>> {
    let stream = reading.stream.as_str();
    let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    match (&reading.app, &reading.vhost) {
        (Some(app), Some(wanted)) if vhost.is_empty() => {
            file.prepare_cached(sql::STREAM_THIS)?.query_row((stream, app, wanted), pair).optional()
        }
        (Some(_), Some(_)) => Ok(None),
        (Some(app), None) => file.prepare_cached(sql::STREAM_OF_APP)?.query_row((stream, app, vhost), pair).optional(),
        (None, _) => file.prepare_cached(sql::STREAM_OF_ANY)?.query_row((stream, app, vhost), pair).optional(),
    }
}

/// The least id that a session of this millisecond can have.
fn first_id(ms: u64) -> u128 {
    u128::from(ms).checked_shl(80).filter(|_| ms < 1 << 48).unwrap_or(u128::MAX)
}

fn blob(id: u128) -> Value {
    Value::Blob(id.to_be_bytes().to_vec())
}

/// What is asked of a file besides the ways through it.
mod sql {
    pub(super) fn one(columns: &str) -> String {
        format!("SELECT {columns} FROM session WHERE id = ?1")
    }

    pub(super) const EXISTS: &str = "SELECT 1 FROM session WHERE id = ?1";
    pub(super) const CARRIED_CLOSED: &str = "SELECT id FROM session INDEXED BY session_closed \
         WHERE closed_ms >= ?3 AND id >= ?1 AND id < ?2";
    pub(super) const CARRIED_OPEN: &str = "SELECT id FROM session INDEXED BY session_open \
         WHERE closed_ms IS NULL AND id >= ?1 AND id < ?2";
    pub(super) const STREAM_THIS: &str = "SELECT app, vhost FROM session INDEXED BY session_stream \
         WHERE stream = ?1 AND app = ?2 AND vhost = ?3 LIMIT 1";
    pub(super) const STREAM_OF_APP: &str = "SELECT app, vhost FROM session INDEXED BY session_stream \
         WHERE stream = ?1 AND app = ?2 AND vhost > ?3 ORDER BY vhost LIMIT 1";
    pub(super) const STREAM_OF_ANY: &str = "SELECT app, vhost FROM session INDEXED BY session_stream \
         WHERE stream = ?1 AND (app, vhost) > (?2, ?3) ORDER BY app, vhost LIMIT 1";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::history::row::NARROW;

    /// How SQLite goes about it, one line for each step.
    fn plan(file: &Connection, text: &str) -> String {
        let mut statement = file.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
        let count = statement.parameter_count();
        for at in 1..=count {
            statement.raw_bind_parameter(at, "x").unwrap();
        }
        let mut rows = statement.raw_query();
        let mut lines = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            lines.push(row.get::<_, String>(3).unwrap());
        }
        lines.join("\n")
    }

    #[test]
    fn every_question_goes_by_an_index_and_nothing_is_sorted() {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../schema.sql")).unwrap();
        let name = || "x".to_owned();
        let ways = [
            (Path::All, "SEARCH session USING PRIMARY KEY (id>? AND id<?)"),
            (Path::Open, "SEARCH session USING INDEX session_open (id>? AND id<?)"),
            (Path::User(name()), "SEARCH session USING INDEX session_user (user=? AND id>? AND id<?)"),
            (
                Path::Stream(name(), name(), name()),
                "SEARCH session USING INDEX session_stream (stream=? AND app=? AND vhost=? AND id>? AND id<?)",
            ),
            (Path::Remote(name()), "SEARCH session USING INDEX session_remote (remote_ip=? AND id>? AND id<?)"),
        ];
        for (way, expected) in ways {
            for columns in [NARROW, WIDE] {
                for direction in [Direction::Ascending, Direction::Descending] {
                    assert_eq!(plan(&file, &way.sql(columns, direction)), expected, "{way:?} {direction:?}");
                }
            }
        }
        for (text, expected) in [
            (sql::one(WIDE).as_str(), "SEARCH session USING PRIMARY KEY (id=?)"),
            (sql::EXISTS, "SEARCH session USING PRIMARY KEY (id=?)"),
            (sql::CARRIED_CLOSED, "SEARCH session USING COVERING INDEX session_closed (closed_ms>?)"),
            (sql::CARRIED_OPEN, "SEARCH session USING INDEX session_open (id>? AND id<?)"),
            (sql::STREAM_THIS, "SEARCH session USING COVERING INDEX session_stream (stream=? AND app=? AND vhost=?)"),
            (sql::STREAM_OF_APP, "SEARCH session USING COVERING INDEX session_stream (stream=? AND app=? AND vhost>?)"),
            (sql::STREAM_OF_ANY, "SEARCH session USING COVERING INDEX session_stream (stream=? AND (app,vhost)>(?,?))"),
        ] {
            assert_eq!(plan(&file, text), expected, "{text}");
        }
    }
}
