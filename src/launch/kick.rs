//! `sluicegate kick`: ends sessions of a running server.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::launch::Exit;
use crate::launch::client::{Client, ClientError};
use crate::stdx::units::counted;

/// Whom, and how.
#[derive(Clone, Debug, Default)]
pub struct Kick {
    /// One session.
    pub id: Option<String>,
    /// Or those that match.
    pub filters: Vec<(&'static str, String)>,
    /// Or, said explicitly, all of them.
    pub all: bool,
    /// How long the same peers are refused.
    pub ban_for: Option<String>,
    /// Only say which.
    pub dry_run: bool,
}

/// Ends sessions and prints what came of it. Ending nobody is a failure, so that scripts notice.
pub async fn kick(client: &Client, what: &Kick) -> Exit {
    if what.id.is_none() && what.filters.is_empty() && !what.all {
        eprintln!("sluicegate: say whom: an id, filters such as --app or --stream, or --all");
        return Exit::Failed;
    }
    match end(client, what).await {
        Ok((text, exit)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            exit
        }
        Err(error) => {
            eprintln!("sluicegate: {error}");
            Exit::Failed
        }
    }
}

async fn end(client: &Client, what: &Kick) -> Result<(String, Exit), ClientError> {
    let ban_for = what.ban_for.as_deref();
    if let (Some(id), false) = (&what.id, what.dry_run) {
        let closed = client.close(id, ban_for).await?;
        let how = if closed.already_closed { "had ended before" } else { "closed" };
        let ban = if closed.banned > 0 { ", banned" } else { "" };
        return Ok((format!("{id} {how}{ban}\n"), Exit::Clean));
    }
    let mut filters = what.filters.clone();
    filters.extend(what.id.clone().map(|id| ("id", id)));
    let done = client.terminate(&filters, ban_for, what.dry_run, what.all).await?;
    let mut text = String::new();
    for id in &done.ids {
        text.push_str(id);
        text.push('\n');
    }
    if done.matched > done.ids.len() {
        let _ = writeln!(text, "… and {} more", done.matched - done.ids.len());
    }
    // Writing to a text cannot fail.
    let _ = if what.dry_run {
        let verb = if done.matched == 1 { "matches" } else { "match" };
        writeln!(text, "{} {verb}; nothing was done", counted(done.matched, "session"))
    } else {
        let matched = counted(done.matched, "session");
        writeln!(text, "{matched} matched, {} closed, {} banned", done.closed, done.banned)
    };
    Ok((text, if done.matched == 0 { Exit::Failed } else { Exit::Clean }))
}
