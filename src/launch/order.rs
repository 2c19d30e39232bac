//! `sluicegate reload` and `sluicegate drain`: what a running server is told to do.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::config::check::{Unit, show};
use crate::launch::Exit;
use crate::launch::client::{Client, ClientError, Reloaded};
use crate::stdx::units::counted;

/// Has the server read its configuration again, and prints what came of it. A configuration that is wrong ends with 78,
/// as `check` does.
pub async fn reload(client: &Client) -> Exit {
    match client.reload().await {
        Ok(reloaded) => {
            let _ = io::stdout().write_all(told(&reloaded).as_bytes());
            Exit::Clean
        }
        Err(ClientError::Refused { status: 422, message }) => {
            eprintln!("{message}\nsluicegate: nothing was changed");
            Exit::Configuration
        }
        Err(error) => {
            eprintln!("sluicegate: {error}");
            Exit::Failed
        }
    }
}

/// Begins a drain and returns; the server ends by itself.
pub async fn drain(client: &Client, over: Option<&str>) -> Exit {
    match client.drain(over).await {
        Ok(draining) => {
            println!("the server drains over {} and then ends", show(Unit::Time, draining.over_ms));
            Exit::Clean
        }
        Err(error) => {
            eprintln!("sluicegate: {error}");
            Exit::Failed
        }
    }
}

fn told(reloaded: &Reloaded) -> String {
    let mut text = String::new();
    for warning in &reloaded.warnings {
        text.push_str(warning);
        text.push('\n');
    }
    let mut list = |what: &str, keys: &[String]| {
        for key in keys {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{what} {key}");
        }
    };
    list("changed", &reloaded.changed);
    list("pending a restart", &reloaded.pending);
    if reloaded.changed.is_empty() {
        text.push_str("nothing has changed\n");
    }
    if reloaded.closed > 0 {
        let were = if reloaded.closed == 1 { "was" } else { "were" };
        let _ = writeln!(text, "{} {were} ended", counted(reloaded.closed, "session"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_reload_is_told_key_by_key() {
        assert_eq!(told(&Reloaded::default()), "nothing has changed\n");
        let reloaded = Reloaded {
            generation: 3,
            changed: vec!["admission.play".into(), "log.level".into()],
            pending: vec!["shard.count".into()],
            warnings: vec!["warning: admission.play: is `deny`".into()],
            closed: 2,
        };
        assert_eq!(
            told(&reloaded),
            "warning: admission.play: is `deny`\nchanged admission.play\nchanged log.level\npending a restart shard.count\n\
             2 sessions were ended\n"
        );
    }
}
