//! Reading the configuration again while the server runs.
//!
//! One [`Reloader`] does it, on the thread that waits for signals: whoever asks, by a signal or over the API, waits for
//! their turn. A configuration is read and checked as a whole before anything of it takes effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::api::auth::Door;
use crate::api::backend::{ReloadError, Reloaded};
use crate::config::check::check;
use crate::config::{Config, Loaded, Origin, Overrides, Problem, Severity, load};
use crate::control::Handle;
use crate::launch::log::Log;
use crate::launch::record;
use crate::shard::Rules;

/// What a reload reads, and what it compares with.
pub struct Reloader {
    origin: Origin,
    overrides: Overrides,
    is_strict: bool,
    running: Config,
}

/// What a reload reaches.
pub(crate) struct Reach<'a> {
    /// Shards and control.
    pub(crate) control: &'a Handle,
    /// The API's tokens and rate.
    pub(crate) door: &'a Door,
    /// Over how long the API spreads a drain.
    pub(crate) drain_timeout: &'a watch::Sender<Duration>,
    /// The level of the log, where this process has one.
    pub(crate) log: Option<&'a Log>,
}

impl Reloader {
    /// For a server that runs what was `loaded`; warnings are errors if `is_strict`.
    #[must_use]
    pub fn new(loaded: &Loaded, is_strict: bool) -> Self {
        Self {
            origin: loaded.origin.clone(),
            overrides: loaded.overrides.clone(),
            is_strict,
            running: loaded.config.clone(),
        }
    }

    /// The configuration that is in force.
    #[must_use]
    pub fn running(&self) -> &Config {
        &self.running
    }

    /// Reads, checks, and puts in force; says in the log what came of it.
    ///
    /// # Errors
    /// What is wrong with the configuration, or why the server could not be told.
    pub(crate) async fn reload(&mut self, reach: &Reach<'_>) -> Result<Reloaded, ReloadError> {
        let (effective, mut reloaded) = match self.read() {
            Ok(read) => read,
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(ev = "reload_refused", "{problem}; nothing was changed");
                }
                reach.control.note_refused_reload().await;
                return Err(ReloadError::Refused(problems));
            }
        };
        let configured = reach.control.configure(Arc::new(rules(&effective))).await;
        // A shard that did not answer in time obeys when it runs again: the configuration is in force all the same.
        reach.door.configure(&effective.api, Instant::now());
        reach.control.sign_with(&effective.hook);
        reach.drain_timeout.send_replace(effective.shard.drain_timeout);
        if let Some(log) = reach.log {
            log.set_level(&effective.log);
        }
        self.running = effective;
        match configured {
            Ok(configured) => (reloaded.generation, reloaded.closed) = (configured.generation, configured.closed),
            Err(error) => {
                tracing::error!(ev = "reload_late", changed = reloaded.changed.join(","), "{error}");
                return Err(ReloadError::Command(error));
            }
        }
        for warning in &reloaded.warnings {
            tracing::warn!(ev = "configuration", "{warning}");
        }
        tracing::info!(
            ev = "reloaded",
            generation = reloaded.generation,
            changed = reloaded.changed.join(","),
            pending = reloaded.pending.join(","),
            closed = reloaded.closed,
            "the configuration was read again"
        );
        Ok(reloaded)
    }

    /// What would be in force, and how it differs from what is and from what was asked for.
    fn read(&self) -> Result<(Config, Reloaded), Vec<String>> {
        let path = match &self.origin {
            Origin::Development => None,
            Origin::File(path) => Some(path.as_path()),
        };
        let env = |name: &str| std::env::var(name).ok();
        let loaded = load(path, &self.overrides, &env).map_err(|refused| texts(&refused.problems))?;
        if self.is_strict && !loaded.warnings.is_empty() {
            return Err(texts(&loaded.warnings));
        }
        let effective = self.running.reloaded(&loaded.config);
        // What waits for a restart may contradict what does not: then nothing is taken.
        let mut contradictions = check(&effective);
        contradictions.retain(|problem| problem.severity == Severity::Error);
        if !contradictions.is_empty() {
            return Err(texts(&contradictions));
        }
        let reloaded = Reloaded {
            changed: self.running.differences(&effective),
            pending: effective.differences(&loaded.config),
            warnings: texts(&loaded.warnings),
            ..Reloaded::default()
        };
        Ok((effective, reloaded))
    }
}

/// Problems that are told; a file that is wrong throughout needs no longer list.
const TOLD_MAX: usize = 25;

fn texts(problems: &[Problem]) -> Vec<String> {
    let mut texts: Vec<String> = problems.iter().take(TOLD_MAX).map(ToString::to_string).collect();
    if problems.len() > TOLD_MAX {
        texts.push(format!("and {} more", problems.len() - TOLD_MAX));
    }
    texts
}

/// What shards and control obey of a configuration.
fn rules(config: &Config) -> Rules {
    Rules {
        shard: config.shard.clone(),
        sessions: config.sessions.clone(),
        rtmp: Arc::new(config.rtmp.clone()),
        streams: config.stream.clone(),
        admission: config.admission.clone(),
        gate: record::gate(config, &record::hook_rules(config)),
    }
}
