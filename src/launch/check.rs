//! What a start would verify, with numbers: `sluicegate check`, and the first thing that `run` does.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::admission::token::Tokens;
use crate::config::check::{Unit, show};
use crate::config::{Config, Loaded, Origin};
use crate::io::memory::Bound;
use crate::io::probe::{self, Plan, Resource};
use crate::launch::{Exit, keys};
use crate::ledger::LOCK_FILE;
use crate::stdx::units;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Fine,
    /// The server starts and will be worse than it could be.
    Doubtful,
    /// The server cannot start.
    Fatal,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at.
    pub what: &'static str,
    /// The numbers, and what mends it.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Fine => "ok",
            Level::Doubtful => "warning",
            Level::Fatal => "error",
        };
        write!(f, "{level:<8} {:<14} {}", self.what, self.text)
    }
}

/// The shards that a configuration means on this machine.
#[must_use]
pub fn shards(config: &Config) -> usize {
    if config.shard.count == 0 { probe::cores() } else { config.shard.count }
}

/// Descriptors that are never used for clients: 256 and one per shard, and the rings and doorbells of shards.
#[must_use]
pub fn descriptor_reserve(shards: usize) -> u64 {
    256 + 9 * shards as u64
}

/// Connections that the descriptors allow: what is configured, or 80% of the limit, less the reserve in any case.
#[must_use]
pub fn connections_max(config: &Config, descriptors: u64) -> u64 {
    let reserve = descriptor_reserve(shards(config));
    match config.shard.connections_max {
        0 => (descriptors / 5).saturating_mul(4).min(descriptors.saturating_sub(reserve)),
        count => count as u64,
    }
}

/// Raises the soft limits to the hard ones and looks at everything a start needs except ports, which the start
/// itself will bind.
#[must_use]
pub fn machine(config: &Config) -> Vec<Finding> {
    let shards = shards(config);
    let plan = Plan { shards, ring_depth: config.shard.ring_depth };
    let mut findings = Vec::new();
    let mut say = |level, what, text: String| findings.push(Finding { level, what, text });

    match probe::kernel() {
        Some((major, minor)) => say(Level::Fine, "kernel", format!("{major}.{minor} (5.8 or newer is needed)")),
        None => say(Level::Doubtful, "kernel", "its version cannot be read from /proc; 5.8 or newer is needed".into()),
    }
    let (level, text) = cores(shards);
    say(level, "cores", text);
    let (level, text) = descriptors(config);
    say(level, "descriptors", text);
    let (level, text) = locked_memory(plan);
    say(level, "locked memory", text);
    match probe::rings(plan) {
        Ok(()) => say(
            Level::Fine,
            "io_uring",
            format!(
                "{} rings of {} entries made ({} for each of {shards} shards, {} in all), every operation is there",
                probe::RINGS_PER_EXECUTOR * shards as u64,
                plan.ring_depth,
                probe::RINGS_PER_EXECUTOR,
                show(Unit::Bytes, plan.ring_bytes()),
            ),
        ),
        Err(error) => say(Level::Fatal, "io_uring", error.to_string()),
    }
    let (level, text) = backlog(config);
    say(level, "backlog", text);
    say(Level::Fine, "memory", memory(config, shards));
    let bound = Bound::find(config.shard.memory_max);
    let (level, text) = memory_limit(bound.limit_bytes, bound.used_bytes());
    say(level, "memory limit", text);
    findings
}

/// Tries every port, and lets go of it again.
#[must_use]
pub fn ports(config: &Config) -> Vec<(Finding, Option<Exit>)> {
    let try_one = |what, at: SocketAddr| match probe::bind(at) {
        Ok(()) => (Finding { level: Level::Fine, what, text: format!("{at} is free") }, None),
        Err(error) => {
            let text = format!("{at} cannot be bound: {error}");
            (Finding { level: Level::Fatal, what, text }, Some(Exit::of_bind(&error)))
        }
    };
    let rtmp = config.shard.rtmp_listen.iter().map(|at| try_one("port rtmp", *at));
    rtmp.chain([try_one("port api", config.api.listen)]).collect()
}

/// Tries whether the ledger could be had, and leaves nothing behind; nothing to say where none is configured.
#[must_use]
pub fn ledger(config: &Config) -> Option<Finding> {
    let directory = Path::new(&config.ledger.directory);
    if directory.as_os_str().is_empty() {
        return None;
    }
    let (level, text) = match try_ledger(directory) {
        Ok(true) => (Level::Fine, format!("{} can be used", directory.display())),
        Ok(false) => (Level::Fine, format!("{} can be made", directory.display())),
        Err(why) => (Level::Fatal, format!("ledger.directory: {why}")),
    };
    Some(Finding { level, what: "ledger", text })
}

/// True when the folder is there already.
fn try_ledger(directory: &Path) -> Result<bool, String> {
    let failed = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
    if !directory.is_dir() {
        // Made, as a start would, and removed again: what a file system permits is known by trying alone.
        let mut made: Vec<PathBuf> = Vec::new();
        let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.as_os_str().is_empty()).collect();
        let outcome: Result<(), String> =
            missing.into_iter().rev().filter(|path| !path.exists()).try_for_each(|path| {
                DirBuilder::new()
                    .mode(0o700)
                    .create(path)
                    .map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
                made.push(path.to_owned());
                Ok(())
            });
        let is_folder = directory.is_dir();
        for path in made.iter().rev() {
            // One that somebody has put something into meanwhile is theirs.
            let _ = fs::remove_dir(path);
        }
        outcome?;
        return if is_folder { Ok(false) } else { Err(format!("{} is not a folder", directory.display())) };
    }
    let lock = directory.join(LOCK_FILE);
    match File::open(&lock) {
        Ok(file) => match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(format!("{} is used by another server", directory.display())),
            Err(TryLockError::Error(error)) => return Err(failed(&lock, &error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&lock, &error)),
    }
    let trial = directory.join(format!(".check-{}", std::process::id()));
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(&trial).map_err(|error| failed(&trial, &error))?;
    fs::remove_file(&trial).map_err(|error| failed(&trial, &error))?;
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, &error))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "db") {
            OpenOptions::new().write(true).open(&path).map_err(|error| failed(&path, &error))?;
        }
    }
    Ok(true)
}

/// Reads every key set that is a file, as a start will a moment later. Those of URLs are not asked for.
#[must_use]
pub fn key_sets(config: &Config) -> Vec<Finding> {
    let Ok(mut tokens) = Tokens::new(&config.admission) else { return Vec::new() };
    let rules = config.admission.jwt.iter().enumerate();
    let files = rules.filter(|(_, rule)| rule.jwks_url.is_empty() && !rule.jwks_file.is_empty());
    let look = |(index, rule): (usize, &crate::admission::settings::JwtRule)| {
        let path = &rule.jwks_file;
        let read = keys::read_file(path);
        let (level, text) = match read.and_then(|text| Ok(tokens.set_jwks(index, path, &text)?)) {
            Ok(count) => (Level::Fine, format!("{path}: {}", units::counted(count, "key"))),
            Err(error) => (Level::Doubtful, format!("{path} cannot be read: {error}; its tokens would be refused")),
        };
        Finding { level, what: "key set", text }
    };
    files.map(look).collect()
}

/// `sluicegate check`.
#[must_use]
pub fn check(loaded: &Loaded) -> Exit {
    match &loaded.origin {
        Origin::Development => println!("no file: the open development profile, on loopback"),
        Origin::File(path) => println!("{}", path.display()),
    }
    let mut findings = machine(&loaded.config);
    findings.extend(ports(&loaded.config).into_iter().map(|(finding, _)| finding));
    findings.extend(ledger(&loaded.config));
    findings.extend(key_sets(&loaded.config));
    for finding in &findings {
        println!("{finding}");
    }
    let (sum, exit) = sum(&findings, loaded.warnings.len());
    println!("{sum}");
    exit
}

/// What it comes to, with the `warnings` about the file that were told before.
fn sum(findings: &[Finding], warnings: usize) -> (String, Exit) {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, doubts) = (count(Level::Fatal), count(Level::Doubtful));
    let all = units::counted(warnings + doubts, "warning");
    if errors > 0 {
        return (format!("a start would fail: {}, {all}", units::counted(errors, "error")), Exit::Configuration);
    }
    let strict = match warnings {
        0 => String::new(),
        _ if doubts == 0 => ", and with --strict it would fail".into(),
        some => format!(", and with --strict it would fail for {some} of them"),
    };
    (format!("a start would succeed ({all}){strict}"), Exit::Clean)
}

fn cores(shards: usize) -> (Level, String) {
    let cores = probe::cores();
    if shards > cores {
        let text = format!("{shards} shards share {cores} cores; more than one on a core costs switches (shard.count)");
        return (Level::Doubtful, text);
    }
    (Level::Fine, format!("{cores} for {shards} shards"))
}

fn descriptors(config: &Config) -> (Level, String) {
    let before = Resource::Descriptors.limit();
    let limit = match Resource::Descriptors.raise() {
        Ok(limit) => limit,
        Err(error) => return (Level::Doubtful, format!("the limit cannot be read: {error}")),
    };
    let raised = match before {
        Ok(before) if before.soft < limit.soft => format!(" (raised from {})", before.soft),
        _ => String::new(),
    };
    let reserve = descriptor_reserve(shards(config));
    let allowed = unlimited_or(limit.soft, Unit::Count);
    let connections = connections_max(config, limit.soft);
    if limit.soft <= reserve {
        let text = format!("{allowed} allowed{raised}, {reserve} are needed before the first connection; {NOFILE}");
        return (Level::Fatal, text);
    }
    if connections.saturating_add(reserve) > limit.soft {
        let text = format!(
            "{allowed} allowed{raised}, but shard.connections_max is {connections} and {reserve} are kept in reserve; \
             {NOFILE}"
        );
        return (Level::Fatal, text);
    }
    let text = format!("{allowed} allowed{raised}: {connections} connections, {reserve} in reserve");
    if connections < FEW_CONNECTIONS {
        return (Level::Doubtful, format!("{text}; {NOFILE}"));
    }
    (Level::Fine, text)
}

/// Below this a start is worth a warning: an edge that cannot hold a thousand viewers was not meant so.
const FEW_CONNECTIONS: u64 = 1_000;

const NOFILE: &str = "set `LimitNOFILE=1048576` in the unit, `--ulimit nofile=1048576` for a container, or `ulimit -n`";

fn locked_memory(plan: Plan) -> (Level, String) {
    let limit = match Resource::LockedMemory.raise() {
        Ok(limit) => limit,
        Err(error) => return (Level::Doubtful, format!("the limit cannot be read: {error}")),
    };
    let kernel = probe::kernel();
    let needed = plan.memlock_needed(kernel);
    let bytes = |count| show(Unit::Bytes, count);
    let allowed = unlimited_or(limit.soft, Unit::Bytes);
    let sum = format!(
        "{} of rings and {} of registered buffers, of which {} count; {} needed, {allowed} allowed",
        bytes(plan.ring_bytes()),
        bytes(plan.buffer_bytes()),
        bytes(plan.locked_bytes(kernel)),
        bytes(needed),
    );
    if probe::has_ipc_lock() {
        // Of that the runtime knows nothing: it wants its floor from everybody.
        let floor = probe::MEMLOCK_FLOOR_BYTES;
        if limit.soft < floor {
            let text = format!("{sum}; CAP_IPC_LOCK lifts the limit, but the runtime wants to see {}", bytes(floor));
            return (Level::Fatal, text);
        }
        return (Level::Fine, format!("{sum}, and CAP_IPC_LOCK lifts the limit"));
    }
    // Two generations run side by side during an upgrade. The rings' own test tells whether one fits.
    if limit.soft >= needed && limit.soft < needed.saturating_mul(2) {
        return (Level::Doubtful, format!("{sum}: enough for one process, not for two of the same user"));
    }
    (if limit.soft < needed { Level::Fatal } else { Level::Fine }, sum)
}

fn backlog(config: &Config) -> (Level, String) {
    let wanted = config.shard.backlog;
    match probe::somaxconn() {
        Some(allowed) if allowed < wanted => (
            Level::Doubtful,
            format!(
                "shard.backlog is {wanted} and the kernel cuts it to {allowed}; `sysctl -w net.core.somaxconn={wanted}`"
            ),
        ),
        Some(allowed) => (Level::Fine, format!("{wanted} for each listener (net.core.somaxconn is {allowed})")),
        None => (Level::Fine, format!("{wanted} for each listener")),
    }
}

/// What the limits add up to, so that nobody has to.
fn memory(config: &Config, shards: usize) -> String {
    let stream = config.stream.gop_bytes.saturating_add(config.stream.queue_bytes).saturating_add(64 << 10);
    let relays = config.stream.relay_bytes.saturating_mul(shards.saturating_sub(1) as u64);
    let mib = |bytes: u64| format!("{:.1} MiB", f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1_024.0);
    format!(
        "at most {} for a stream on each shard that carries it and {} between shards, {} for a publisher's unfinished \
         messages, {} for a stranger's",
        mib(stream),
        mib(relays),
        mib(config.rtmp.partial_bytes.saturating_add(config.rtmp.verdict_buffer)),
        mib(config.rtmp.partial_bytes_unauthorized),
    )
}

/// What the load states are measured by. A control group that is half full before the start leaves little.
fn memory_limit(limit: u64, used: u64) -> (Level, String) {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let text = format!(
        "{} before load is shed (shard.memory_max, the control group's limit or 80% of the machine), {} in use",
        mib(limit),
        mib(used)
    );
    (if used > limit / 2 { Level::Doubtful } else { Level::Fine }, text)
}

fn unlimited_or(count: u64, unit: Unit) -> String {
    if count == u64::MAX { "unlimited".into() } else { show(unit, count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cf_07_connections_beyond_the_descriptors_are_fatal_and_told_in_numbers() {
        let mut config = Config::development();
        config.shard.connections_max = 10_000_000;
        let limit = Resource::Descriptors.limit().unwrap();
        if limit.hard > 10_001_000 {
            return;
        }
        let (level, text) = descriptors(&config);
        assert_eq!(level, Level::Fatal, "{text}");
        assert!(text.contains("10000000") && text.contains("LimitNOFILE="), "{text}");
    }

    #[test]
    fn cf_07_four_fifths_of_the_descriptors_are_for_clients() {
        let mut config = Config::development();
        config.shard.count = 2;
        assert_eq!(connections_max(&config, 20_000), 16_000);
        assert_eq!(connections_max(&config, 1_024), 1_024 - 274);
        assert_eq!(connections_max(&config, u64::MAX), u64::MAX / 5 * 4);
        config.shard.connections_max = 7;
        assert_eq!(connections_max(&config, 20_000), 7);
    }

    #[test]
    fn limits_memory_that_is_half_gone_before_the_start_is_doubtful() {
        assert_eq!(memory_limit(1_000 << 20, 500 << 20).0, Level::Fine);
        let (level, text) = memory_limit(1_000 << 20, 501 << 20);
        assert_eq!(level, Level::Doubtful);
        assert!(text.contains("1000 MiB") && text.contains("501 MiB"), "{text}");
    }

    fn with_ledger(directory: &Path) -> Config {
        let mut config = Config::development();
        config.ledger.directory = directory.to_str().unwrap().to_owned();
        config
    }

    #[test]
    fn a_ledger_that_cannot_be_made_or_is_in_use_is_fatal_and_nothing_is_left_behind() {
        assert_eq!(ledger(&Config::development()), None);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| ledger(&with_ledger(&folder.path().join(name))).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for name in ["file", "file/below"] {
            assert_eq!(at(name).level, Level::Fatal, "{name}");
        }
        assert_eq!(ledger(&with_ledger(Path::new("/proc/sluicegate"))).unwrap().level, Level::Fatal);
        assert_eq!(at("a/b/c").level, Level::Fine);
        assert!(!folder.path().join("a").exists(), "what was made to try is left");

        let directory = folder.path().join("ledger");
        let settings = with_ledger(&directory).ledger;
        let now = std::time::Instant::now();
        let opened = crate::ledger::open(&settings, crate::stdx::clock::WallAnchor::now(), now).unwrap();
        let held = at("ledger");
        assert!(held.level == Level::Fatal && held.text.contains("used by another server"), "{held}");
        drop(opened);
        let names = || fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let before = names();
        assert_eq!(at("ledger").level, Level::Fine);
        assert_eq!(names(), before);
    }

    #[test]
    fn a_key_set_that_cannot_be_read_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.json");
        let look = || {
            let rule = crate::admission::settings::JwtRule {
                jwks_file: path.to_str().unwrap().to_owned(),
                ..crate::admission::settings::JwtRule::default()
            };
            let mut config = Config::development();
            config.admission.jwt = vec![rule];
            key_sets(&config).remove(0)
        };
        assert_eq!(look().level, Level::Doubtful);
        fs::write(&path, "no key set").unwrap();
        assert_eq!(look().level, Level::Doubtful);
        let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        fs::write(&path, key).unwrap();
        assert_eq!((look().level, look().text.ends_with(": 1 key")), (Level::Fine, true), "{}", look());
    }

    #[test]
    fn warnings_about_the_file_and_the_machine_are_one_sum() {
        let finding = |level| Finding { level, what: "x", text: String::new() };
        let doubtful = [finding(Level::Fine), finding(Level::Doubtful)];
        let text = |findings: &[Finding], warnings| sum(findings, warnings).0;
        assert_eq!(text(&[], 0), "a start would succeed (0 warnings)");
        assert_eq!(text(&doubtful, 0), "a start would succeed (1 warning)");
        assert_eq!(text(&[], 2), "a start would succeed (2 warnings), and with --strict it would fail");
        assert_eq!(
            text(&doubtful, 2),
            "a start would succeed (3 warnings), and with --strict it would fail for 2 of them"
        );
        assert_eq!(
            sum(&[finding(Level::Fatal), finding(Level::Doubtful)], 1),
            ("a start would fail: 1 error, 2 warnings".into(), Exit::Configuration)
        );
    }

    #[test]
    fn cf_05_check_finds_a_busy_port() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::development();
        config.shard.rtmp_listen = vec![taken.local_addr().unwrap()];
        config.api.listen = "127.0.0.1:0".parse().unwrap();
        let found = ports(&config);
        assert_eq!((found[0].0.level, found[0].1), (Level::Fatal, Some(Exit::Temporary)));
        assert_eq!(found[1].0.level, Level::Fine);
    }
}
