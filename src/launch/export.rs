//! `sluicegate ledger export`: sessions as lines, from the ledger's files, with a server or without one.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::api::Problem;
use crate::api::native::history::ask;
use crate::api::native::history::export::{Format, batch};
use crate::api::query::Params;
use crate::launch::Exit;
use crate::ledger::Files;
use crate::ledger::history::{Filter, Reader};

/// How the lines are written, and of which sessions.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// How lines are written.
    #[arg(long, value_name = "FORMAT", default_value = "ndjson")]
    format: FormatArg,
    /// Only sessions that were there at this time or later, as 2026-11-20 or 2026-11-20T17:30:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only sessions that were there before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Why they ended, as kicked; commas mean "or", here and below.
    #[arg(long)]
    reason: Option<String>,
    /// publish, play, ingest or push.
    #[arg(long)]
    kind: Option<String>,
    /// How they were carried: rtmp.
    #[arg(long)]
    protocol: Option<String>,
    /// The virtual host.
    #[arg(long)]
    vhost: Option<String>,
    /// The application.
    #[arg(long)]
    app: Option<String>,
    /// The stream: its name, app/stream, or vhost/app/stream.
    #[arg(long)]
    stream: Option<String>,
    /// The user.
    #[arg(long)]
    user: Option<String>,
    /// The peer: an address, address:port, or a block as 10.0.0.0/8.
    #[arg(long)]
    remote: Option<String>,
    /// open or closed.
    #[arg(long)]
    state: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Ndjson,
    Csv,
}

impl ExportArgs {
    /// The fields of the filter of `GET /v1/history/sessions`, and their values.
    fn filters(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("from", &self.from),
            ("to", &self.to),
            ("reason", &self.reason),
            ("kind", &self.kind),
            ("protocol", &self.protocol),
            ("vhost", &self.vhost),
            ("app", &self.app),
            ("stream", &self.stream),
            ("user", &self.user),
            ("remote", &self.remote),
            ("state", &self.state),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    fn format(&self) -> Format {
        match self.format {
            FormatArg::Ndjson => Format::Ndjson,
            FormatArg::Csv => Format::Csv,
        }
    }
}

/// Writes the sessions that match to standard output, the newest first.
#[must_use]
pub fn export(directory: &Path, args: &ExportArgs) -> Exit {
    let filter = match read(&args.filters()) {
        Ok(filter) => filter,
        Err(problem) => {
            eprintln!("sluicegate: --{}: {}", problem.field.as_deref().unwrap_or("filter"), problem.detail);
            return Exit::Failed;
        }
    };
    match write(directory, &filter, args.format(), io::stdout().lock()) {
        Ok(()) => Exit::Clean,
        // Whoever reads has seen enough, as `head` does.
        Err(ExportError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
        Err(error) => {
            eprintln!("sluicegate: {error}");
            Exit::Failed
        }
    }
}

/// Why an export is not complete.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{}: {error}", directory.display())]
    Directory { directory: PathBuf, error: io::Error },
    #[error("{}: there are no files of a ledger", .0.display())]
    Empty(PathBuf),
    #[error(transparent)]
    History(#[from] crate::ledger::history::Error),
    #[error("the lines could not be written: {0}")]
    Output(#[from] io::Error),
}

fn read(filters: &[(&'static str, String)]) -> Result<Filter, Problem> {
    ask::filter(&mut Params::of(filters.iter().map(|(name, value)| ((*name).to_owned(), value.clone()))))
}

fn write(directory: &Path, filter: &Filter, format: Format, to: impl Write) -> Result<(), ExportError> {
    let failed = |error| ExportError::Directory { directory: directory.to_owned(), error };
    std::fs::read_dir(directory).map_err(failed)?;
    let files = Arc::new(Files::offline(directory));
    if files.list().is_empty() {
        return Err(ExportError::Empty(directory.to_owned()));
    }
    let reader = Reader::patient(files);
    let mut out = BufWriter::new(to);
    let (mut after, mut is_first) = (None, true);
    while is_first || after.is_some() {
        let lines = batch(&reader, filter, after, format, is_first)?;
        out.write_all(&lines.bytes)?;
        (after, is_first) = (lines.after, false);
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(directory: &Path, filters: &[(&'static str, String)], format: Format) -> Result<String, ExportError> {
        let mut out = Vec::new();
        write(directory, &read(filters).unwrap(), format, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_is_in_a_folder_comes_out_as_lines() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(text(folder.path(), &[], Format::Csv), Err(ExportError::Empty(_))));
        let nowhere = folder.path().join("nowhere");
        assert!(matches!(text(&nowhere, &[], Format::Csv), Err(ExportError::Directory { .. })));
        let file = rusqlite::Connection::open(folder.path().join("2026-11-20.db")).unwrap();
        file.execute_batch(include_str!("../ledger/schema.sql")).unwrap();
        for n in 0..1_100u32 {
            // 2026-11-20T00:00:00Z and `n` milliseconds.
            let id = u128::from(1_795_132_800_000 + u64::from(n)) << 80 | 0x7000_8000_0000_0000_0000;
            let user = ["ann", "bob"][n as usize % 2];
            file.execute(
                "INSERT INTO session (id, kind, protocol, vhost, app, stream, user, remote_ip, remote_port, local, \
                 connection, shard, query, opened_ms, updated_ms, closed_ms, seq) VALUES (?1, 'play', 'rtmp', 'default', \
                 'live', 'cam', ?2, '192.0.2.7', 1, '192.0.2.1:1935', 1, 0, 'token=hunter2', ?3, ?3, ?3, 1)",
                (id.to_be_bytes(), user, 1_795_132_800_000_i64 + i64::from(n)),
            )
            .unwrap();
        }
        let lines = text(folder.path(), &[], Format::Ndjson).unwrap();
        assert_eq!(lines.lines().count(), 1_100);
        assert!(!lines.contains("hunter2"));
        let filters =
            [("user", "ann".to_owned()), ("from", "2026-11-20T00:00:00.5Z".to_owned()), ("state", "closed".to_owned())];
        let table = text(folder.path(), &filters, Format::Csv).unwrap();
        assert_eq!(table.lines().count(), 301);
        assert_eq!(table.lines().filter(|line| line.starts_with("id,")).count(), 1);
    }

    #[test]
    fn the_filters_of_the_command_line_are_those_of_the_history() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: ExportArgs,
        }
        let line =
            Line::try_parse_from("x --user ann --from 2026-11-20 --reason kicked --format csv".split(' ')).unwrap();
        assert_eq!(line.args.format(), Format::Csv);
        let filter = read(&line.args.filters()).unwrap();
        assert_eq!((filter.users, filter.from_ms), (vec!["ann".to_owned()], Some(1_795_132_800_000)));
        assert_eq!(filter.reasons, [crate::session::Reason::Kicked]);
        assert!(Line::try_parse_from(["x", "--format", "xlsx"]).is_err());
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let problem = read(&[("from", "yesterday".to_owned())]).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("from"));
    }
}
