//! What the log obeys. The writer itself lives in `launch`, because only there is it known where lines go.

use serde::{Deserialize, Serialize};

use crate::config::load::nearest_word;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Time, level, sentence, then `key=value`.
    #[default]
    Human,
    /// One JSON object per line with the fixed field names of the design.
    Json,
}

/// `[log]`: lines on standard error, written by a thread of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How a line looks.
    pub format: Format,
    /// What is written: a level (`off`, `error`, `warn`, `info`, `debug`, `trace`), and after commas other levels
    /// for single parts, as `info,sluicegate::hook=debug`. `debug` adds every question to a back end and what came of it,
    /// streams whose publisher has gone, key sets that were read, connections to the API that ended early, and what a
    /// start found. What libraries say below `info` is written where they are named, as `debug,hyper_util=debug`.
    pub level: String,
    /// Lines that may wait for a slow reader of standard error; beyond it lines are dropped and counted, because
    /// nothing else may wait for a log. A line is at most about 8 KiB and usually 200 bytes.
    pub lines_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Human, level: "info".into(), lines_max: 16_384 }
    }
}

/// The names of levels.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a level text and gives it back in the form that filters read.
///
/// # Errors
/// A sentence that names the part which is not a level. A bare word that is no level would otherwise pass as the
/// name of a part and silence everything else.
pub fn parse_level(text: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (target, level) = match part.rsplit_once('=') {
            Some((target, level)) => (Some(target.trim()), level.trim()),
            None => (None, part),
        };
        let level = level.to_ascii_lowercase();
        if !LEVELS.contains(&level.as_str()) || target.is_some_and(str::is_empty) {
            let near = nearest_word(&level, LEVELS.into_iter());
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(format!(
                "`{part}` is not a level; write one of {}, or a part and its level as \"sluicegate::hook=debug\"{hint}",
                LEVELS.join(", ")
            ));
        }
        parts.push(target.map_or_else(|| level.clone(), |target| format!("{target}={level}")));
    }
    Ok(parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_does_not_silence_the_log() {
        assert_eq!(parse_level("INFO"), Ok("info".into()));
        assert_eq!(parse_level("warn, sluicegate::shard = debug"), Ok("warn,sluicegate::shard=debug".into()));
        for bad in ["infoo", "", "info,", "sluicegate=loud", "=info"] {
            assert!(parse_level(bad).is_err(), "{bad:?}");
        }
        assert!(parse_level("sluicegate=debg").unwrap_err().ends_with("; did you mean `debug`?"));
    }
}
