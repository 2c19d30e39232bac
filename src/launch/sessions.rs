//! `sluicegate sessions`: who is here, from a running server.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::launch::Exit;
use crate::launch::client::{Client, ClientError, Session};
use crate::launch::table;

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);

/// Moves to the upper left corner and clears what is below. The scroll-back stays.
pub(crate) const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Prints sessions once, or every second until the output is closed.
pub async fn sessions(client: &Client, filters: &[(&str, String)], json: bool, watch: bool) -> Exit {
    let mut out = io::stdout();
    let clear = watch && !json && out.is_terminal();
    loop {
        let text = match fetch(client, filters, json, clear).await {
            Ok(text) => text,
            // A watcher stays through a restart of the server; anything else will not mend itself.
            Err(error @ ClientError::Unreachable { .. }) if watch => format!("{error}\n"),
            Err(error) => {
                eprintln!("sluicegate: {error}");
                return Exit::Failed;
            }
        };
        let clear = if clear { CLEAR } else { "" };
        // A closed pipe (`| head`) is the reader's way to say that it has seen enough.
        if write!(out, "{clear}{text}").and_then(|()| out.flush()).is_err() || !watch {
            return Exit::Clean;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn fetch(client: &Client, filters: &[(&str, String)], json: bool, fits: bool) -> Result<String, ClientError> {
    if json {
        let rows: Vec<serde_json::Value> = client.sessions(filters).await?;
        return Ok(format!("{}\n", serde_json::Value::Array(rows)));
    }
    let rows: Vec<Session> = client.sessions(filters).await?;
    let room = if fits { table::Room::below("") } else { None };
    Ok(table::render_in(&rows, room))
}
