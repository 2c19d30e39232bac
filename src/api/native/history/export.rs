//! Sessions of the past as lines: of JSON, or of CSV for tables.
//!
//! A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@`, and most of what is in a row was chosen by a
//! stranger. Such a cell gets an apostrophe in front, which spreadsheets do not show, and quotes.

use crate::api::native::history::wire::HistorySession;
use crate::ledger::history::{Error, Filter, Reader};
use crate::names::SessionId;

/// Rows of one batch. A batch is held in memory; between two the file is free.
const BATCH_ROWS: usize = 500;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object of JSON in each line.
    Ndjson,
    /// RFC 4180, with a line of names first.
    Csv,
}

/// Some lines.
#[derive(Debug)]
pub struct Batch {
    /// The lines.
    pub bytes: Vec<u8>,
    /// Where the next batch begins; `None` on the last.
    pub after: Option<SessionId>,
}

/// The next lines of an export of `filter`. With `is_first`, names come before them where the format has any.
///
/// # Errors
/// When a file cannot be read, or cannot be read in time.
pub fn batch(
    reader: &Reader,
    filter: &Filter,
    after: Option<SessionId>,
    format: Format,
    is_first: bool,
) -> Result<Batch, Error> {
    let page = reader.sessions(filter, after, BATCH_ROWS)?;
    let mut bytes = Vec::new();
    if is_first && format == Format::Csv {
        bytes.extend_from_slice(COLUMNS.join(",").as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    for record in &page.records {
        let session = HistorySession::from(record);
        match format {
            Format::Ndjson => {
                serde_json::to_writer(&mut bytes, &session).map_err(|_| Error::Defect)?;
                bytes.push(b'\n');
            }
            Format::Csv => line(&mut bytes, &session),
        }
    }
    Ok(Batch { bytes, after: page.after })
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    pub(super) fn disposition(self) -> &'static str {
        match self {
            Self::Ndjson => "attachment; filename=\"sessions.ndjson\"",
            Self::Csv => "attachment; filename=\"sessions.csv\"",
        }
    }
}

const COLUMNS: [&str; 35] = [
    "id",
    "kind",
    "protocol",
    "state",
    "vhost",
    "app",
    "stream",
    "user",
    "labels",
    "remote",
    "local",
    "user_agent",
    "referrer",
    "tc_url",
    "opened_at",
    "authorized_at",
    "started_at",
    "closed_at",
    "as_of",
    "duration_ms",
    "rx_bytes",
    "tx_bytes",
    "rx_media_bytes",
    "tx_media_bytes",
    "rx_frames",
    "tx_frames",
    "dropped_frames",
    "overflows",
    "queue_peak_bytes",
    "shard",
    "connection",
    "reason",
    "detail",
    "side",
    "recovered",
];

fn line(out: &mut Vec<u8>, session: &HistorySession) {
    let maybe = |text: &Option<String>| text.clone().unwrap_or_default();
    let labels = if session.labels.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&session.labels).unwrap_or_default()
    };
    let cells: [String; COLUMNS.len()] = [
        session.id.clone(),
        session.kind.clone(),
        session.protocol.clone(),
        session.state.to_owned(),
        session.vhost.clone(),
        session.app.clone(),
        session.stream.clone(),
        maybe(&session.user),
        labels,
        session.remote.clone(),
        session.local.clone(),
        maybe(&session.user_agent),
        maybe(&session.referrer),
        maybe(&session.tc_url),
        session.opened_at.clone(),
        maybe(&session.authorized_at),
        maybe(&session.started_at),
        maybe(&session.closed_at),
        session.as_of.clone(),
        session.duration_ms.to_string(),
        session.bytes.rx.to_string(),
        session.bytes.tx.to_string(),
        session.media_bytes.rx.to_string(),
        session.media_bytes.tx.to_string(),
        session.frames.rx.to_string(),
        session.frames.tx.to_string(),
        session.dropped_frames.to_string(),
        session.overflows.to_string(),
        session.queue_peak_bytes.to_string(),
        session.shard.to_string(),
        session.connection.clone(),
        maybe(&session.reason),
        maybe(&session.detail),
        maybe(&session.side),
        session.recovered.to_string(),
    ];
    for (at, text) in cells.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        cell(out, text);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes one cell, so that no text in it can become a formula, another cell or another line.
fn cell(out: &mut Vec<u8>, text: &str) {
    let is_formula =
        text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    if !is_formula && !text.contains([',', '"', '\r', '\n']) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    if is_formula {
        out.push(b'\'');
    }
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_leaves_its_place() {
        let written = |text: &str| {
            let mut out = Vec::new();
            cell(&mut out, text);
            String::from_utf8(out).unwrap()
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\""),
            ("\u{ff1d}1", "\"'\u{ff1d}1\""),
            ("a=b", "a=b"),
        ] {
            assert_eq!(written(text), expected);
        }
    }
}
