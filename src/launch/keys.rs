//! Key sets of token rules: read at the start, every now and then, after a reload, and when a token names a key that is
//! not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Settings;
use crate::admission::settings::JwtRule;
use crate::control::Handle;
use crate::hook::Fetcher;
use crate::hook::fetch::DOCUMENT_BYTES_MAX;

/// How soon a key set that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Keeps the key sets fresh, for ever: spawn it on control's runtime and drop it at the end.
pub(crate) async fn run(control: Handle, fetcher: Fetcher) {
    let mut rules = control.admission();
    let mut due: BTreeMap<usize, Instant> = BTreeMap::new();
    let mut settings = Arc::clone(&rules.borrow_and_update());
    plan(&settings, &mut due);
    loop {
        let next = due.values().min().copied();
        let tick = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tick => {}
            wanted = control.stale_keys() => {
                for rule in wanted {
                    due.entry(rule).and_modify(|at| *at = Instant::now());
                }
            }
            changed = rules.changed() => {
                if changed.is_err() {
                    return;
                }
                settings = Arc::clone(&rules.borrow_and_update());
                plan(&settings, &mut due);
            }
        }
        let now = Instant::now();
        let ripe: Vec<usize> = due.iter().filter(|(_, at)| **at <= now).map(|(rule, _)| *rule).collect();
        for index in ripe {
            let Some(rule) = settings.jwt.get(index) else { continue };
            let again = if refresh(&control, &fetcher, index, rule).await { rule.jwks_refresh } else { RETRY };
            due.insert(index, Instant::now() + again);
        }
    }
}

/// Every rule with a key set is due at once.
fn plan(settings: &Settings, due: &mut BTreeMap<usize, Instant>) {
    due.clear();
    let with_sets = settings.jwt.iter().enumerate();
    let with_sets = with_sets.filter(|(_, rule)| !rule.jwks_file.is_empty() || !rule.jwks_url.is_empty());
    due.extend(with_sets.map(|(index, _)| (index, Instant::now())));
}

/// Reads one key set and gives it to the desk. What was there before stays where that fails.
async fn refresh(control: &Handle, fetcher: &Fetcher, index: usize, rule: &JwtRule) -> bool {
    let (source, read) = if rule.jwks_url.is_empty() {
        (&rule.jwks_file, read_file_elsewhere(rule.jwks_file.clone()).await)
    } else {
        (&rule.jwks_url, fetcher.get(&rule.jwks_url).await.map_err(|failure| failure.as_str().to_owned()))
    };
    let set = match read {
        Ok(text) => control.set_jwks(index, source.clone(), text).await.map_err(str::to_owned),
        Err(error) => Err(error),
    };
    let from = shown(rule);
    match set {
        Ok(keys) => tracing::debug!(ev = "key_set", rule = index, from, keys, "read"),
        Err(ref error) => {
            tracing::warn!(ev = "key_set", rule = index, from, "cannot be read: {error}; the keys stay as they were");
        }
    }
    set.is_ok()
}

/// Where the key set comes from, as the log may say it: what follows the path of a URL may be the issuer's secret.
fn shown(rule: &JwtRule) -> &str {
    if rule.jwks_url.is_empty() { &rule.jwks_file } else { rule.jwks_url.split(['?', '#']).next().unwrap_or_default() }
}

/// A file is read elsewhere: control waits for no disk.
async fn read_file_elsewhere(path: String) -> Result<String, String> {
    tokio::task::spawn_blocking(move || read_file(&path)).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// The text of a key set's file.
///
/// # Errors
/// Why there is none.
pub(crate) fn read_file(path: &str) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > DOCUMENT_BYTES_MAX as u64 {
        return Err(format!("it has {size} bytes, and a key set at most {DOCUMENT_BYTES_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}
