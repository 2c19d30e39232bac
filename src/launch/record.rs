//! The ledger and the hooks at the start: what an earlier life left is closed and told, then everything runs.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::{Ban, Bans, Desk, Gate, HookRule};
use crate::config::Config;
use crate::control::spool::LedgerSpool;
use crate::control::{self, journal};
use crate::event::{Event, Sink};
use crate::hook::settings::{Ask, OnFailure};
use crate::hook::webhook::Webhook;
use crate::hook::{Asks, Endpoint};
use crate::launch::StartError;
use crate::ledger::{self, Ledger};
use crate::stdx::clock::WallAnchor;

/// What a start prepares for control and the shards.
pub(crate) struct Prepared {
    /// For control.
    pub(crate) outside: crate::control::Outside,
    /// What every shard obeys by itself.
    pub(crate) gate: Arc<Gate>,
    /// Whom every shard refuses from the beginning.
    pub(crate) bans: Vec<Ban>,
    /// The ledger, where one is configured.
    pub(crate) ledger: Option<Ledger>,
    /// Receivers, and what is still to be told to each.
    pub(crate) tellers: Vec<(Endpoint, LedgerSpool)>,
}

/// Opens the ledger, closes what a crash left open, and makes ready to ask and tell.
pub(crate) fn prepare(config: &Config, wall: WallAnchor, now: Instant) -> Result<Prepared, StartError> {
    let node = node_name();
    let hooks = hook_rules(config);
    let gate = gate(config, &hooks);
    let desk = Desk::new(&config.admission, hooks, Arc::clone(&gate), wall)
        .map_err(|error| StartError::Configuration(error.to_string()))?;
    let asks = if config.hook.ask.is_empty() { None } else { Some(make(Asks::new(&config.hook, &node))?) };

    let start = uuid::Uuid::new_v4().to_string();
    let sinks = sinks(config, &node, &start)?;
    let mut endpoints = Vec::new();
    for tell in config.hook.tell.iter().filter(|tell| tell.enabled) {
        endpoints.push(make(Endpoint::new(&config.hook, tell))?);
    }

    let make_sinks = || self::sinks(config, &node, &start);
    let mut kept = Kept { bans: Bans::new(config.admission.bans_max), earlier: ledger::Earlier::default() };
    let ledger = open_ledger(config, wall, now, &make_sinks, &mut kept)?;
    let Kept { bans, earlier } = kept;
    let tellers = match &ledger {
        Some(ledger) => {
            let spools = sinks.iter().map(|sink| LedgerSpool::new(ledger.clone(), Arc::clone(&sink.name)));
            endpoints.iter().cloned().zip(spools).collect()
        }
        None => Vec::new(),
    };
    let held = bans.iter().map(|(whom, until)| Ban { whom: whom.clone(), until }).collect();
    let checkpoint_every = config.ledger.checkpoint_every;
    let record = ledger.clone().map(|ledger| (ledger, checkpoint_every));
    let admission = Arc::new(config.admission.clone());
    let outside = crate::control::Outside { admission, desk, asks, ledger: record, sinks, endpoints, bans, earlier };
    Ok(Prepared { outside, gate, bans: held, ledger, tellers })
}

/// Who is told, as configured.
fn sinks(config: &Config, node: &str, start: &str) -> Result<Vec<Sink>, StartError> {
    let enabled = config.hook.tell.iter().filter(|tell| tell.enabled);
    let sink = |tell: &crate::hook::settings::Tell| {
        let filter = tell.filter().map_err(|error| StartError::Configuration(format!("hook.tell: {error}")))?;
        Ok(Sink { name: tell.name.as_str().into(), filter, encoder: Box::new(Webhook::new(node, start)) })
    };
    enabled.map(sink).collect()
}

/// What an earlier life left in force.
struct Kept {
    bans: Bans,
    /// What it finished.
    earlier: ledger::Earlier,
}

fn open_ledger(
    config: &Config,
    wall: WallAnchor,
    now: Instant,
    make_sinks: &dyn Fn() -> Result<Vec<Sink>, StartError>,
    kept: &mut Kept,
) -> Result<Option<Ledger>, StartError> {
    if config.ledger.directory.is_empty() {
        return Ok(None);
    }
    let failed = |error: ledger::FileError| {
        let hint = if error.may_pass() { "; make room for it, or start with ledger.directory = \"\"" } else { "" };
        StartError::Ledger(format!("{error}{hint}"))
    };
    let mut opened = ledger::open(&config.ledger, wall, now).map_err(failed)?;
    let sinks = make_sinks()?;
    let names: Vec<_> = sinks.iter().map(|sink| Arc::clone(&sink.name)).collect();
    let mut lines = control::log::Log::default();
    let mut tells = move |event: &Event| {
        lines.write(event);
        // The number names only events that belong to no session.
        journal::tells(&sinks, event, 0, &wall)
    };
    let recovered = opened.recover_for(RECOVERY_PATIENCE, &mut tells);
    // A disk that is full costs nobody his media: the ledger's thread goes on with it as soon as there is room. Nor does
    // a life that was so large that closing all of it takes a while.
    let recovered = match recovered {
        Ok(recovered) => recovered,
        Err(error) if error.may_pass() => {
            tracing::error!(
                ev = "ledger",
                "{error}: the ledger is degraded from the start; what an earlier life left open is closed, and what \
                 happens from now on is recorded, when that is over"
            );
            ledger::Recovered::default()
        }
        Err(error) => return Err(failed(error)),
    };
    for finding in opened.findings() {
        tracing::warn!(ev = "ledger", "{finding}");
    }
    let known: Vec<&str> = names.iter().map(|name| &**name).collect();
    // What could not be forgotten today is at the next start.
    let forgotten = match opened.forget_other_sinks(&known) {
        Err(error) if error.may_pass() => 0,
        done => done.map_err(failed)?,
    };
    if forgotten > 0 {
        tracing::warn!(ev = "ledger", forgotten, "events waited for receivers that are not configured any more");
    }
    if recovered.sessions > 0 || recovered.streams > 0 {
        tracing::warn!(
            ev = "ledger",
            sessions = recovered.sessions,
            started = recovered.started,
            streams = recovered.streams,
            took_ms = u64::try_from(recovered.took.as_millis()).unwrap_or(u64::MAX),
            "the server did not stop in good order; what was running is closed as server_crash"
        );
    }
    if !opened.is_recovered() {
        tracing::warn!(ev = "ledger", "what is still open of an earlier life is closed while the server runs");
    }
    let today = wall.unix_ms(now);
    for stored in opened.bans() {
        let left = Duration::from_millis(stored.until_unix_ms.saturating_sub(today));
        kept.bans.insert(now, Ban { whom: stored.whom, until: now + left });
    }
    kept.earlier = opened.earlier();
    let ledger = if opened.is_recovered() { opened.start() } else { opened.start_recovering(Box::new(tells)) };
    let ledger = ledger.map_err(|error| StartError::Resource { what: "the ledger's thread".into(), error })?;
    Ok(Some(ledger))
}

/// How long a start closes what a crash left open before everything else begins; the rest is closed while the server
/// runs. It is enough for tens of thousands of sessions, and little enough for all who wait to come back.
const RECOVERY_PATIENCE: Duration = Duration::from_millis(250);

/// How this server names itself to back ends.
fn node_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = name.trim().chars().filter(char::is_ascii_graphic).take(64);
    let mut text = String::new();
    for c in plain {
        let _ = write!(text, "{c}");
    }
    if text.is_empty() { "sluicegate".to_owned() } else { text }
}

fn make<T>(made: Result<T, crate::hook::StartError>) -> Result<T, StartError> {
    made.map_err(|error| StartError::Configuration(format!("hook: {error}")))
}

/// What every shard knows of admission by itself.
pub(crate) fn gate(config: &Config, hooks: &[HookRule]) -> Arc<Gate> {
    Arc::new(Gate::new(&config.admission, hooks))
}

/// What the desk and every shard know of the hooks.
pub(crate) fn hook_rules(config: &Config) -> Vec<HookRule> {
    config.hook.ask.iter().map(hook_rule).collect()
}

fn hook_rule(ask: &Ask) -> HookRule {
    HookRule {
        apps: ask.apps.clone(),
        kinds: ask.kinds.clone(),
        play_on_failure: ask.play_on_failure == OnFailure::Allow,
        cache_publish: ask.cache_publish,
        cache_by_address: ask.cache_by_address,
        stale_if_error: ask.stale_if_error,
        recheck_every: ask.recheck_every,
    }
}
