//! Sessions as an aligned table for a terminal.

use std::fmt::Write as _;

use crate::io::probe::terminal;
use crate::launch::client::Session;
use crate::stdx::units::counted;

/// The widest text of one cell. Names come from peers.
const CELL_CHARS_MAX: usize = 48;

const HEAD: [&str; 10] = ["ID", "KIND", "STATE", "STREAM", "REMOTE", "UPTIME", "RX", "TX", "RATE", "QUEUE"];
/// Columns of numbers are flush right.
const RIGHT: [bool; 10] = [false, false, false, false, false, true, true, true, true, true];

/// What is left of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Lines.
    pub rows: usize,
    /// Characters in one; a longer one takes the next too.
    pub columns: usize,
}

impl Room {
    /// What `text` and the line of the cursor leave of the terminal; nothing where standard output is none.
    #[must_use]
    pub fn below(text: &str) -> Option<Self> {
        let (rows, columns) = terminal()?;
        let room = Self { rows, columns };
        let taken = text.lines().map(|line| room.lines(line)).sum::<usize>() + 1;
        Some(Self { rows: rows.saturating_sub(taken), ..room })
    }

    /// The lines of a terminal that one of ours takes.
    fn lines(self, line: &str) -> usize {
        line.chars().count().div_ceil(self.columns.max(1)).max(1)
    }
}

/// The table, with a line of sums, every line ended.
#[must_use]
pub fn render(sessions: &[Session]) -> String {
    render_in(sessions, None)
}

/// The same, without those for whom there is no room: how many they are is told in their place. Else the head of the table
/// would scroll away.
#[must_use]
pub fn render_in(sessions: &[Session], room: Option<Room>) -> String {
    let rows: Vec<[String; 10]> = sessions.iter().map(row).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = line(&HEAD.map(str::to_owned), &widths);
    let rows: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    let sum = sums(sessions);
    let shown = room.map_or(rows.len(), |room| fitting(room, &head, &rows, &sum));
    let mut out = head;
    out.extend(rows.iter().take(shown).map(String::as_str));
    if shown < rows.len() {
        // Writing to a text cannot fail.
        let _ = writeln!(out, "… and {} more", rows.len() - shown);
    }
    out.push_str(&sum);
    out
}

/// How many rows fit between head and sums, with a line about the rest where not all do.
fn fitting(room: Room, head: &str, rows: &[String], sum: &str) -> usize {
    let left = room.rows.saturating_sub(room.lines(head.trim_end()) + room.lines(sum.trim_end()));
    let lines = rows.iter().map(|row| room.lines(row.trim_end()));
    if lines.clone().sum::<usize>() <= left {
        return rows.len();
    }
    let ends = lines.scan(1, |end, lines| {
        *end += lines;
        Some(*end)
    });
    ends.take_while(|end| *end <= left).count()
}

fn sums(sessions: &[Session]) -> String {
    let of = |kind: &str| sessions.iter().filter(|session| session.kind == kind).count();
    let sum = |number: fn(&Session) -> u64| sessions.iter().map(number).sum::<u64>();
    format!(
        "{}: {} publish, {} play; rx {} at {}, tx {} at {}\n",
        counted(sessions.len(), "session"),
        of("publish"),
        of("play"),
        size(sum(|s| s.bytes.rx)),
        rate(sum(|s| s.rates.rx_bps_10s)),
        size(sum(|s| s.bytes.tx)),
        rate(sum(|s| s.rates.tx_bps_10s)),
    )
}

fn row(session: &Session) -> [String; 10] {
    let source = matches!(session.kind.as_str(), "publish" | "ingest");
    let stream = if session.vhost.is_empty() || session.vhost == crate::names::DEFAULT_VHOST {
        format!("{}/{}", session.app, session.stream)
    } else {
        format!("{}/{}/{}", session.vhost, session.app, session.stream)
    };
    [
        cell(&session.id),
        cell(&session.kind),
        cell(&session.state),
        cell(&stream),
        cell(&session.remote),
        uptime(session.duration_ms),
        size(session.bytes.rx),
        size(session.bytes.tx),
        rate(if source { session.rates.rx_bps_10s } else { session.rates.tx_bps_10s }),
        size(session.queue_bytes),
    ]
}

fn line(cells: &[String; 10], widths: &[usize; 10]) -> String {
    let mut text = String::new();
    for ((cell, width), right) in cells.iter().zip(widths).zip(RIGHT) {
        let _ = if right { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:<width$}  ") };
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A text that cannot steer the terminal, cut to its column.
fn cell(text: &str) -> String {
    let mut plain =
        text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
    let mut out: String = plain.by_ref().take(CELL_CHARS_MAX).collect();
    if plain.next().is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// `59s`, `12m05s`, `3h07m`, `2d04h`.
#[must_use]
pub fn uptime(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Bytes with a binary unit and one digit after the point.
#[must_use]
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1_024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], "")
}

/// Bits a second with a decimal unit.
#[must_use]
pub fn rate(bps: u64) -> String {
    scaled(bps, 1_000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s", "Ebit/s"], " ")
}

/// In tenths, by whole numbers: the sums are exact and so is what is shown of them.
fn scaled(value: u64, base: u64, units: &[&str], gap: &str) -> String {
    let mut tenths = u128::from(value) * 10;
    let mut unit = 0;
    while tenths >= u128::from(base) * 10 && unit + 1 < units.len() {
        tenths /= u128::from(base);
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{value}{gap}{name}") } else { format!("{}.{}{gap}{name}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::client::{Both, Rates};

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            (size(0), size(1_023), size(1_024), size(1_600 << 10)),
            ("0B".into(), "1023B".into(), "1.0KiB".into(), "1.5MiB".into())
        );
        assert_eq!(size(u64::MAX), "15.9EiB");
        assert_eq!((rate(999), rate(2_150_000)), ("999 bit/s".into(), "2.1 Mbit/s".into()));
        let up = |seconds: u64| uptime(seconds * 1_000);
        assert_eq!([up(59), up(725), up(11_220), up(187_200)], ["59s", "12m05s", "3h07m", "2d04h"]);
    }

    #[test]
    fn columns_are_aligned_and_names_of_peers_are_harmless() {
        let session = |kind: &str, stream: &str| Session {
            id: "0197f0aa-0000-7000-8000-000000000001".into(),
            kind: kind.into(),
            state: "running".into(),
            vhost: "default".into(),
            app: "live".into(),
            stream: stream.into(),
            remote: "127.0.0.1:50000".into(),
            duration_ms: 61_000,
            bytes: Both { rx: 4_096, tx: 100 },
            rates: Rates { rx_bps_10s: 1_000, tx_bps_10s: 2_000 },
            ..Session::default()
        };
        let text = render(&[session("publish", "a"), session("play", &format!("b\u{1b}[2J\n{}", "ü".repeat(100)))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(!text.contains('\u{1b}'));
        let column = |line: &str, what: &str| line.find(what).map(|at| line[..at].chars().count());
        assert_eq!(column(lines[0], "REMOTE"), column(lines[1], "127.0.0.1"));
        assert_eq!(column(lines[1], "127.0.0.1"), column(lines[2], "127.0.0.1"));
        assert!(lines[1].contains("1.0 kbit/s") && lines[2].contains("2.0 kbit/s"), "{text}");
        assert_eq!(lines[3], "2 sessions: 1 publish, 1 play; rx 8.0KiB at 2.0 kbit/s, tx 200B at 4.0 kbit/s");
    }

    #[test]
    fn sessions_for_whom_the_terminal_has_no_room_are_counted_and_the_head_stays() {
        let sessions = vec![Session { kind: "play".into(), ..Session::default() }; 9];
        let lines = |rows, columns| {
            let text = render_in(&sessions, Some(Room { rows, columns }));
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines(11, 200).len(), 11, "all of them fit");
        let cut = lines(10, 200);
        assert_eq!(cut.len(), 10, "{cut:?}");
        assert!(cut[0].starts_with("ID") && cut[9].starts_with("9 sessions"), "{cut:?}");
        assert_eq!(cut[8], "… and 2 more");
        // Each row takes two lines of so narrow a terminal, and so do head and sums.
        let width = cut.iter().map(|line| line.chars().count()).min().unwrap().max(40);
        let narrow = lines(11, width);
        let taken: usize = narrow.iter().map(|line| line.chars().count().div_ceil(width)).sum();
        assert!(taken <= 11 && narrow.len() < 11, "{narrow:?}");
        assert_eq!(lines(0, 0).len(), 3, "head, count and sums are told in any case");
        assert!(render(&sessions[..1]).contains("\n1 session: 0 publish, 1 play;"));
    }
}
