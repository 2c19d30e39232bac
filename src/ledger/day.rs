//! Days, and the names of their files.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::names::SessionId;

/// A day of the UTC calendar, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

const DAY_MS: u64 = 86_400_000;

impl Day {
    /// The day of an instant in milliseconds since the Unix epoch.
    #[must_use]
    pub fn of_unix_ms(unix_ms: u64) -> Self {
        Self(u32::try_from(unix_ms / DAY_MS).unwrap_or(u32::MAX))
    }

    /// The day on which a session opened: a `UUIDv7` begins with its milliseconds.
    #[must_use]
    pub fn of_session(id: SessionId) -> Self {
        Self::of_unix_ms(u64::try_from(id.as_u128() >> 80).unwrap_or(0))
    }

    /// Its first instant in milliseconds since the Unix epoch.
    #[must_use]
    pub fn begins_unix_ms(self) -> u64 {
        u64::from(self.0) * DAY_MS
    }

    /// Reads `2026-11-20`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let mut number = |width: usize| {
            let part = parts.next()?;
            (part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<i64>().ok())?
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        let found = Self(u32::try_from(days_of(year, month, day)).ok()?);
        // A day that no month has comes back as another.
        (found.to_string() == text).then_some(found)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(i64::from(self.0));
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Days since the Unix epoch of a date of the Gregorian calendar. Years begin in March here, so that the day that
/// comes every fourth year is the last one.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a count of days since the Unix epoch: year, month, day.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Which file: a day has one, and one more each time its file had to be given up after an I/O error.
///
/// A session whose row stands in several files of one day is what the highest generation says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The day.
    pub day: Day,
    /// 0, and 1 for the file that followed the first.
    pub generation: u8,
}

impl FileKey {
    /// The first file of a day.
    #[must_use]
    pub fn first(day: Day) -> Self {
        Self { day, generation: 0 }
    }

    /// Its name: `2026-11-20.db`, `2026-11-20.1.db`.
    #[must_use]
    pub fn file_name(self) -> String {
        let Self { day, generation } = self;
        if generation == 0 { format!("{day}.db") } else { format!("{day}.{generation}.db") }
    }

    /// Reads a file's name; what is no day's file is `None`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".db")?;
        let (day, generation) = match stem.split_once('.') {
            Some((day, generation)) => (day, generation.parse().ok().filter(|number: &u8| *number > 0)?),
            None => (stem, 0),
        };
        let key = Self { day: Day::parse(day)?, generation };
        (key.file_name() == name).then_some(key)
    }

    /// Where it is in `directory`.
    #[must_use]
    pub fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.file_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_one_name_and_its_name_one_day() {
        for (unix_ms, name) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_795_155_521_000, "2026-11-20"),
            (4_107_542_399_999, "2100-02-28"),
            (4_107_542_400_000, "2100-03-01"),
        ] {
            let day = Day::of_unix_ms(unix_ms);
            assert_eq!(day.to_string(), name);
            assert_eq!(Day::parse(name), Some(day));
        }
        for days in (0..60_000).step_by(7) {
            assert_eq!(Day::parse(&Day(days).to_string()), Some(Day(days)));
        }
        for bad in ["2026-02-29", "2026-13-01", "2026-1-01", "2026-01-00", "2026-01-01-01", "+026-01-01", "", "today"] {
            assert_eq!(Day::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_the_names_of_day_files_are_read() {
        let key = FileKey::first(Day::of_unix_ms(1_795_155_521_000));
        assert_eq!(key.file_name(), "2026-11-20.db");
        assert_eq!(FileKey { generation: 12, ..key }.file_name(), "2026-11-20.12.db");
        for generation in [0, 1, 12, 255] {
            let key = FileKey { generation, ..key };
            assert_eq!(FileKey::parse(&key.file_name()), Some(key));
        }
        for bad in ["state.db", "2026-11-20.db-wal", "2026-11-20.0.db", "2026-11-20.01.db", "2026-11-20.bad", ".db"] {
            assert_eq!(FileKey::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_session_belongs_to_the_day_on_which_it_opened() {
        let midnight = Day::parse("2026-11-20").unwrap().begins_unix_ms();
        let day = |unix_ms| Day::of_session(SessionId::new(unix_ms, [0xff; 10])).to_string();
        assert_eq!((day(midnight - 1), day(midnight)), ("2026-11-19".into(), "2026-11-20".into()));
    }
}
