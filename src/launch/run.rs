//! `sluicegate run`: load, look at the machine, start, say where, wait, stop.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::admission::settings::Access;
use crate::api::backend::ReloadRequest;
use crate::config::{Config, Loaded, Origin};
use crate::launch::check::{self, Level};
use crate::launch::cli::{DEFAULT_API, TOKEN_VARIABLE};
use crate::launch::reload::{Reach, Reloader};
use crate::launch::{Exit, Running, Stop, log, start_server};
use crate::names::Kind;
use crate::stdx::units::counted;

/// How long each way to stop may take before the next begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// A drain, beyond its own time.
    drain: Duration,
    /// Closing every session at once.
    fast: Duration,
    /// The end that was asked for twice; close records are still written.
    now: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { drain: Duration::from_secs(12), fast: Duration::from_secs(5), now: Duration::from_secs(1) }
    }
}

/// Runs the server until it is told to stop. With `is_strict`, a reload takes warnings for errors, as the start did.
#[must_use]
pub fn run(loaded: Loaded, is_strict: bool) -> Exit {
    let is_development = loaded.origin == Origin::Development;
    let reloader = Reloader::new(&loaded, is_strict);
    let config = loaded.config;
    let (log, running) = match start(&config) {
        Ok(started) => started,
        Err(exit) => return exit,
    };
    // Whoever closed standard output does not want to know.
    let _ = io::stdout().write_all(banner(&config, &running, is_development).as_bytes());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sluicegate: {error}");
            return Exit::Resource;
        }
    };
    runtime.block_on(until_ended(running, reloader, Some(&log), Patience::default(), std::future::pending()))
}

/// Looks at the machine, starts the log and the server, and says what was wrong otherwise.
pub(crate) fn start(config: &Config) -> Result<(log::Log, Running), Exit> {
    let findings = check::machine(config);
    for finding in findings.iter().filter(|finding| finding.level == Level::Fatal) {
        eprintln!("sluicegate: {}: {}", finding.what, finding.text);
    }
    if findings.iter().any(|finding| finding.level == Level::Fatal) {
        return Err(Exit::Configuration);
    }
    let log = log::start(&config.log).map_err(|error| {
        eprintln!("sluicegate: the log cannot be started: {error}");
        Exit::Internal
    })?;
    for finding in findings {
        if finding.level == Level::Doubtful {
            tracing::warn!(ev = "machine", what = finding.what, "{}", finding.text);
        } else {
            tracing::debug!(ev = "machine", what = finding.what, "{}", finding.text);
        }
    }
    let running = start_server(config).map_err(|error| {
        tracing::error!(ev = "start_failed", "{error}");
        error.exit()
    })?;
    tracing::info!(
        ev = "started",
        version = env!("CARGO_PKG_VERSION"),
        shards = running.shards,
        rtmp = ?running.rtmp,
        api = %running.api,
        "the server is ready"
    );
    Ok((log, running))
}

/// A reload under way: gives back who does it.
type Reloading<'a> = Pin<Box<dyn Future<Output = Reloader> + 'a>>;

/// Reads the configuration again, and tells whoever asked.
fn reload<'a>(
    mut reloader: Reloader,
    running: &Running,
    log: Option<&'a log::Log>,
    request: Option<ReloadRequest>,
) -> Reloading<'a> {
    let (control, door) = (running.control.clone(), Arc::clone(&running.door));
    let drain_timeout = running.drain_timeout.clone();
    Box::pin(async move {
        let reach = Reach { control: &control, door: &door, drain_timeout: &drain_timeout, log };
        let outcome = reloader.reload(&reach).await;
        // Who asked may have gone; the log says what came of it.
        let _ = request.map(|request| request.send(outcome));
        reloader
    })
}

/// Waits for signals, reloads, `done`, and the server's end, which it hurries along. A reload that is under way holds up
/// nothing but the next one, and none of them is finished for a server that is being ended.
pub(crate) async fn until_ended(
    mut running: Running,
    reloader: Reloader,
    log: Option<&log::Log>,
    patience: Patience,
    done: impl Future<Output = ()>,
) -> Exit {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("sluicegate: signals cannot be handled: {error}");
            return Exit::Resource;
        }
    };
    let mut stage = Stop::No;
    let mut deadline: Option<Instant> = None;
    let mut drain_timeout = reloader.running().shard.drain_timeout;
    // One of the two: who reloads is at hand, or at it.
    let mut idle = Some(reloader);
    let mut reloading: Option<Reloading<'_>> = None;
    let mut again = false;
    tokio::pin!(done);
    loop {
        let next = tokio::select! {
            ended = &mut running.ended => return match ended {
                Ok(Ok(())) => {
                    tracing::info!(ev = "stopped", "the server has ended");
                    Exit::Clean
                }
                Ok(Err(why)) => {
                    tracing::error!(ev = "failed", "{why}");
                    Exit::Internal
                }
                Err(_) => {
                    tracing::error!(ev = "failed", "the control thread died");
                    Exit::Internal
                }
            },
            reloader = finished(&mut reloading) => {
                drain_timeout = reloader.running().shard.drain_timeout;
                reloading = None;
                if std::mem::take(&mut again) {
                    reloading = Some(reload(reloader, &running, log, None));
                } else {
                    idle = Some(reloader);
                }
                stage
            }
            // One reload is over before the next begins.
            Some(request) = running.reloads.recv(), if idle.is_some() => {
                reloading = idle.take().map(|reloader| reload(reloader, &running, log, Some(request)));
                stage
            }
            order = signals.next() => match order {
                Order::Stop => after_signal(stage, Stop::Drain { over: drain_timeout }),
                Order::StopFast => after_signal(stage, Stop::Fast),
                Order::Reload => {
                    match idle.take() {
                        Some(reloader) => reloading = Some(reload(reloader, &running, log, None)),
                        // The file may have changed since it was read: once more, however many ask.
                        None => again = true,
                    }
                    stage
                }
                Order::Unsupported(what, instead) => {
                    tracing::warn!(ev = "signal_unsupported", signal = what, "{instead}; nothing was changed");
                    stage
                }
            },
            () = &mut done, if stage == Stop::No => Stop::Fast,
            () = sleep_until(deadline) => match stage {
                Stop::No | Stop::Drain { .. } => Stop::Fast,
                Stop::Fast => Stop::Now,
                Stop::Now => {
                    tracing::error!(ev = "failed", "the server did not end in time; ending anyway");
                    return Exit::Internal;
                }
            },
        };
        if next > stage {
            stage = next;
            let within = match stage {
                Stop::No => patience.drain,
                Stop::Drain { over } => over.saturating_add(patience.drain),
                Stop::Fast => patience.fast,
                Stop::Now => patience.now,
            };
            deadline = Some(Instant::now() + within);
            tracing::info!(ev = "stopping", how = stage.as_str(), within = ?within, "the server is stopping");
            // A control thread that is gone is seen by `ended`.
            let _ = running.stop.send(stage);
        }
    }
}

/// The first signal is taken at its word; a second one means now.
fn after_signal(stage: Stop, asked: Stop) -> Stop {
    if stage == Stop::No { asked } else { Stop::Now }
}

async fn finished(reloading: &mut Option<Reloading<'_>>) -> Reloader {
    match reloading {
        Some(reloading) => reloading.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_1: Signal,
    user_2: Signal,
}

enum Order {
    Stop,
    StopFast,
    Reload,
    /// A signal that other servers obey and this one does not: its name, and what to do instead. Left alone it would
    /// end the process.
    Unsupported(&'static str, &'static str),
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::StopFast,
            _ = self.hang_up.recv() => Order::Reload,
            _ = self.user_1.recv() => {
                Order::Unsupported("SIGUSR1", "the log goes to standard error, so there is no file to open again")
            }
            _ = self.user_2.recv() => {
                Order::Unsupported("SIGUSR2", "this server takes a new program by a restart")
            }
        }
    }
}

/// What a newcomer needs to know, in a few lines.
#[must_use]
pub fn banner(config: &Config, running: &Running, is_development: bool) -> String {
    let mut out = format!("sluicegate {} on {}\n", env!("CARGO_PKG_VERSION"), counted(running.shards, "shard"));
    let mut line = |what: &str, text: String| {
        // Writing to a text cannot fail.
        let _ = writeln!(out, "  {what:<8} {text}");
    };
    for (number, at) in running.rtmp.iter().enumerate() {
        let url = format!("rtmp://{}/live/<name>", reachable(*at));
        if number == 0 {
            line("publish", format!("{url}{}", who(config, config.admission.publish, Kind::Publish)));
            line("play", format!("{url}{}", who(config, config.admission.play, Kind::Play)));
        } else {
            line("", format!("rtmp://{}/live/<name>", reachable(*at)));
        }
    }
    line("API", format!("http://{}/v1/sessions", reachable(running.api)));
    line("watch", watch(config, running.api));
    if is_development {
        let also = if config.admission.publish == Access::Open {
            "anyone who reaches this address may publish and play"
        } else {
            "anyone may play, and publishing is kept to this machine"
        };
        line("NOTE", format!("open development profile: {also}. A sluicegate.toml decides otherwise."));
    }
    out
}

/// The command that watches this server, as it works from this machine.
fn watch(config: &Config, api: SocketAddr) -> String {
    let token = if config.api.tokens.is_empty() { String::new() } else { format!("{TOKEN_VARIABLE}=<token> ") };
    let url = format!("http://{}", reachable(api));
    let at = if url == DEFAULT_API { String::new() } else { format!(" --api {url}") };
    format!("{token}sluicegate sessions --watch{at}")
}

fn who(config: &Config, access: Access, kind: Kind) -> &'static str {
    match access {
        _ if config.is_decided(kind) => "   (as rules and hooks decide)",
        Access::Open => "",
        Access::Loopback => "   (from this machine only)",
        Access::Deny => "   (nobody may)",
    }
}

/// An address as somebody on this machine would write it, without the port that the scheme implies.
fn reachable(at: SocketAddr) -> String {
    let mut at = at;
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{oneshot, watch};

    fn setup() -> crate::control::Setup {
        crate::control::Setup {
            wall: crate::stdx::clock::WallAnchor::now(),
            started_at: std::time::Instant::now(),
            shards: 2,
            control: crate::control::Settings::default(),
            stream: crate::stream::Settings::default(),
            duplicate_publish: crate::admission::settings::DuplicatePublish::default(),
        }
    }

    fn running() -> (Running, watch::Receiver<Stop>, oneshot::Sender<Result<(), String>>) {
        let (stop, orders) = watch::channel(Stop::No);
        let (end, ended) = oneshot::channel();
        let rtmp = vec!["127.0.0.1:1935".parse().unwrap(), "[::]:1936".parse().unwrap()];
        let api = "127.0.0.1:8081".parse().unwrap();
        let outside = crate::control::Outside::alone();
        let (control, _) = crate::control::start(&setup(), outside);
        let door = crate::api::auth::Door::new(&crate::api::Settings::default(), std::time::Instant::now()).into();
        let reloads = tokio::sync::mpsc::channel(1).1;
        let drain_timeout = watch::Sender::new(Duration::from_secs(30));
        (Running { rtmp, api, shards: 2, stop, ended, control, door, drain_timeout, reloads }, orders, end)
    }

    /// Waits for the end of a server without a file.
    fn end_of(running: Running, done: impl Future<Output = ()>) -> Exit {
        let loaded = crate::config::load(None, &crate::config::Overrides::default(), &|_| None).unwrap();
        wait(until_ended(running, Reloader::new(&loaded, false), None, SHORT, done))
    }

    const SHORT: Patience =
        Patience { drain: Duration::from_millis(20), fast: Duration::from_millis(20), now: Duration::from_millis(20) };

    fn wait<T>(work: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn banner_says_where_and_that_the_profile_is_open() {
        let (running, ..) = running();
        let text = banner(&Config::development(), &running, true);
        for part in [
            "publish  rtmp://127.0.0.1:1935/live/<name>",
            "play     rtmp://127.0.0.1:1935/live/<name>",
            "rtmp://[::1]:1936/live",
            "http://127.0.0.1:8081/v1/sessions",
            "open development profile",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let text = banner(&Config::default(), &running, false);
        assert!(text.contains("(nobody may)") && !text.contains("development"), "{text}");
        assert!(text.contains("  watch    sluicegate sessions --watch\n"), "{text}");
    }

    #[test]
    fn banner_prints_a_command_that_reaches_this_server() {
        let (running, ..) = running();
        let mut config = Config::development();
        let token = crate::stdx::units::Secret::new("0123456789abcdefghijkl".into());
        config.api.tokens = vec![crate::api::settings::Token { token, role: crate::api::settings::Role::Read }];
        let running = Running { api: "0.0.0.0:20002".parse().unwrap(), shards: 1, ..running };
        let text = banner(&config, &running, false);
        let command = "SLUICEGATE_TOKEN=<token> sluicegate sessions --watch --api http://127.0.0.1:20002\n";
        assert!(text.contains(command) && text.contains("on 1 shard\n"), "{text}");
    }

    #[test]
    fn first_signal_is_taken_at_its_word_and_a_second_means_now() {
        let drain = Stop::Drain { over: Duration::from_secs(30) };
        assert_eq!(after_signal(Stop::No, drain), drain);
        assert_eq!(after_signal(Stop::No, Stop::Fast), Stop::Fast);
        assert_eq!(after_signal(drain, drain), Stop::Now);
        assert_eq!(after_signal(Stop::Fast, Stop::Fast), Stop::Now);
    }

    #[test]
    fn an_end_that_hangs_is_hurried_and_then_cut() {
        let (running, orders, _end) = running();
        // Nobody sends `ended`: fast, then now, then the process goes.
        let exit = end_of(running, async {});
        assert_eq!(exit, Exit::Internal);
        assert_eq!(*orders.borrow(), Stop::Now);
    }

    #[test]
    fn a_reload_that_hangs_does_not_hold_up_the_end() {
        // Control takes orders and never carries one out.
        let outside = crate::control::Outside::alone();
        let (control, _deaf) = crate::control::start(&setup(), outside);
        let (ask, reloads) = tokio::sync::mpsc::channel(1);
        let (running, orders, _end) = running();
        let (request, mut answer) = oneshot::channel();
        ask.try_send(request).unwrap();
        let loaded = crate::config::load(None, &crate::config::Overrides::default(), &|_| None).unwrap();
        let exit = wait(async {
            let running = Running { control, reloads, ..running };
            let told = tokio::time::sleep(Duration::from_millis(50));
            let end = until_ended(running, Reloader::new(&loaded, false), None, SHORT, told);
            tokio::time::timeout(Duration::from_secs(20), end).await
        });
        assert_eq!(exit, Ok(Exit::Internal));
        assert_eq!(*orders.borrow(), Stop::Now);
        assert!(answer.try_recv().is_err(), "a reload that was not finished is not answered");
    }

    #[test]
    fn ends_have_their_codes() {
        for (outcome, exit) in [(Ok(()), Exit::Clean), (Err("a shard panicked".to_owned()), Exit::Internal)] {
            let (running, _orders, end) = running();
            end.send(outcome).unwrap();
            assert_eq!(end_of(running, std::future::pending()), exit);
        }
        let (running, _orders, end) = running();
        drop(end);
        assert_eq!(end_of(running, std::future::pending()), Exit::Internal);
    }
}
