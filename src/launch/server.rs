//! The server itself: shards, control and API, wired together.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admission::load::Usage;
use crate::admission::{SessionTypes, Sources};
use crate::api::auth::Door;
use crate::api::backend::{RELOADS_MAX, ReloadRequest, Server};
use crate::config::Config;
use crate::control;
use crate::control::mailbox::PostMail;
use crate::control::spool::LedgerSpool;
use crate::hook::{self, Endpoint, Fetcher, Spool as _};
use crate::io::{memory, probe, tcp};
use crate::launch::record::{self, Prepared};
use crate::launch::{Exit, check, keys};
use crate::ledger::Ledger;
use crate::ledger::history::History;
use crate::names::ShardId;
use crate::shard;
use crate::shard::Post;
use crate::shard::mail::ToShard;
use crate::stdx::clock::WallAnchor;

/// How much of a hurry there is. It only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Run.
    #[default]
    No,
    /// No new sessions; goodbyes spread over so much time; then end.
    Drain {
        /// `shard.drain_timeout` at the moment of the order.
        over: Duration,
    },
    /// Close every session at once, with its records; then end.
    Fast,
    /// End within a second, whatever is left.
    Now,
}

/// A server that runs on threads of its own.
pub struct Running {
    /// Where RTMP really listens (a configured port 0 has its number here).
    pub rtmp: Vec<SocketAddr>,
    /// Where the API really listens.
    pub api: SocketAddr,
    /// Shards that run.
    pub shards: usize,
    /// Control, for new rules.
    pub control: control::Handle,
    /// The API's door, for new tokens.
    pub door: Arc<Door>,
    /// Who asks the API for a reload.
    pub reloads: mpsc::Receiver<ReloadRequest>,
    /// The one order that launch gives. The control thread holds the receiver.
    pub stop: watch::Sender<Stop>,
    /// Sent when everything has ended, in good order or not. A dropped sender is a control thread that died.
    pub ended: oneshot::Receiver<Result<(), String>>,
}

/// Why a server did not start. Nothing of it is left running.
#[derive(Debug)]
pub enum StartError {
    /// A listener could not be bound.
    Bind {
        /// The key that names it.
        key: &'static str,
        /// Where.
        at: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// An executor or a thread could not be made.
    Resource {
        /// Which.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// The ledger cannot be used.
    Ledger(String),
    /// What the check of the configuration cannot see.
    Configuration(String),
    /// A defect of ours.
    Internal(String),
}

impl StartError {
    /// How the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Bind { error, .. } => Exit::of_bind(error),
            Self::Resource { .. } | Self::Ledger(_) => Exit::Resource,
            Self::Configuration(_) => Exit::Configuration,
            Self::Internal(_) => Exit::Internal,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { key, at, error } => {
                write!(f, "{key}: cannot listen on {at}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => f.write_str("; another process has the port (`ss -ltnp` names it)"),
                    io::ErrorKind::AddrNotAvailable => f.write_str("; this machine has no such address"),
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need CAP_NET_BIND_SERVICE (`AmbientCapabilities=` in the unit)")
                    }
                    _ => Ok(()),
                }
            }
            Self::Resource { what, error } => write!(f, "{what}: {error}"),
            Self::Ledger(what) => write!(f, "ledger.directory: {what}"),
            Self::Configuration(what) => f.write_str(what),
            Self::Internal(what) => write!(f, "internal error at start: {what}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts shards, control and API, and returns when every listener is armed. The machine was probed and the log
/// runs; `config` was checked.
///
/// # Errors
/// What could not be had. Everything that was started is stopped again.
pub fn start_server(config: &Config) -> Result<Running, StartError> {
    let (wall, started_at) = (WallAnchor::now(), Instant::now());
    let count = check::shards(config);
    let mut claims = Vec::new();
    let (mut listeners, rtmp) = bind_rtmp(config, count, &mut claims)?;
    let api_listener = bind_api(config.api.listen)?;
    let api = api_listener.local_addr().map_err(|error| StartError::Bind {
        key: "api.listen",
        at: config.api.listen,
        error,
    })?;
    let (post, sleepers) =
        Post::new(count).map_err(|error| StartError::Resource { what: "the shards' doorbells".into(), error })?;

    let setup = control::Setup {
        wall,
        started_at,
        shards: count,
        control: config.control.clone(),
        stream: config.stream.clone(),
        duplicate_publish: config.admission.duplicate_publish,
    };
    let Prepared { outside, gate, bans, ledger, tellers } = record::prepare(config, wall, started_at)?;
    let (handle, task) = control::start(&setup, outside);
    let task = task.watching(started_at, measure(config));
    let (stop, orders) = watch::channel(Stop::No);
    let (reloads_in, reloads) = mpsc::channel(RELOADS_MAX);
    let control = handle.clone();
    let door = Arc::new(Door::new(&config.api, started_at));
    let (ended_in, ended) = oneshot::channel();
    let mut threads = Vec::new();
    let descriptors = probe::Resource::Descriptors.limit().map_or(1_024, |limit| limit.soft);
    let connections = usize::try_from(check::connections_max(config, descriptors)).unwrap_or(usize::MAX);
    let connections_open = Arc::new(AtomicUsize::new(0));
    let sources = Arc::new(Sources::new(config.shard.source_limits(connections), started_at));
    let types = Arc::new(SessionTypes::new(started_at));
    let cores = probe::allowed_cores();
    let rtmp_settings = Arc::new(config.rtmp.clone());
    for (index, sleeper) in (0u16..).zip(sleepers) {
        let plan = shard::Plan {
            id: ShardId(index),
            // More shards than cores share them: then the scheduler knows better.
            cpu: cores.get(usize::from(index)).copied().filter(|_| count <= cores.len()),
            tick: shard::TICK,
            settings: config.shard.clone(),
            sessions: config.sessions.clone(),
            rtmp: Arc::clone(&rtmp_settings),
            streams: config.stream.clone(),
            gate: Arc::clone(&gate),
            bans: bans.clone(),
            bans_max: config.admission.bans_max,
            wall,
            seed: seed(index),
            rtmp_listeners: listeners.get_mut(usize::from(index)).map(std::mem::take).unwrap_or_default(),
            sleeper,
            post: Arc::clone(&post),
            connections_max: connections,
            connections_open: Arc::clone(&connections_open),
            sources: Arc::clone(&sources),
            types: Arc::clone(&types),
        };
        match shard::start(plan) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                for running in 0..index {
                    let _ = post.to_shard(ShardId(running), ToShard::Stop);
                }
                return Err(StartError::Resource { what: format!("shard {index}"), error });
            }
        }
    }
    let history = ledger.as_ref().map(|ledger| History::new(ledger.files()));
    let backend = Server { control: handle.clone(), reloads: reloads_in };
    let router = crate::api::router_behind(&door, backend, history, &config.api);
    let fetcher = Fetcher::new(&config.hook).map_err(|error| StartError::Configuration(error.to_string()))?;
    let telling = Telling { ledger, tellers, fetcher };
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            let ledger = telling.ledger.clone();
            let result = run_control(&handle, task, post, api_listener, router, orders, telling);
            for thread in threads {
                // A shard whose thread panicked has said so in the log.
                let _ = thread.join();
            }
            if let Some(ledger) = ledger {
                ledger.stop(LAST_RECORDS);
            }
            drop(claims);
            let _ = ended_in.send(result);
        })
        .map_err(|error| StartError::Resource { what: "the control thread".into(), error })?;
    Ok(Running { rtmp, api, shards: count, control, door, reloads, stop, ended })
}

/// What the load of this process is made of.
fn measure(config: &Config) -> control::load::Measure {
    let bound = memory::Bound::find(config.shard.memory_max);
    let lag_max = config.shard.loop_lag_max;
    Box::new(move |connections| Usage {
        memory: (bound.used_bytes(), bound.limit_bytes),
        descriptors: (
            memory::descriptors_open(connections),
            probe::Resource::Descriptors.limit().map_or(0, |limit| limit.soft),
        ),
        lag_max,
        ..Usage::default()
    })
}

/// The record, and who is told from it.
struct Telling {
    ledger: Option<Ledger>,
    /// Receivers, and what is still to be told to each.
    tellers: Vec<(Endpoint, LedgerSpool)>,
    /// Fetches key sets.
    fetcher: Fetcher,
}

/// Control's thread: the read model and the API, until every shard has stopped.
fn run_control(
    handle: &control::Handle,
    task: control::Control,
    post: Arc<Post>,
    api: std::net::TcpListener,
    router: axum::Router,
    mut orders: watch::Receiver<Stop>,
    telling: Telling,
) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let api = tokio::net::TcpListener::from_std(api).map_err(|error| error.to_string())?;
        let (close_api, api_closes) = oneshot::channel::<()>();
        let api = tokio::spawn(crate::api::serve(api, router, async {
            let _ = api_closes.await;
        }));
        let log = tokio::spawn(control::log::run(handle.clone()));
        let Telling { ledger, tellers, fetcher } = telling;
        let keys = tokio::spawn(keys::run(handle.clone(), fetcher));
        let spools: Vec<_> = tellers.iter().map(|(_, spool)| spool.clone()).collect();
        let tells: Vec<_> = tellers
            .into_iter()
            .map(|(endpoint, spool)| {
                let wake = spool.committed();
                tokio::spawn(hook::tell(endpoint, spool, wake))
            })
            .collect();
        handle.set_ready(Instant::now()).await;
        let obey = async {
            while orders.changed().await.is_ok() {
                match *orders.borrow_and_update() {
                    Stop::No => {}
                    Stop::Drain { over } => handle.drain(over),
                    Stop::Fast | Stop::Now => handle.stop(),
                }
            }
            // Nobody can give orders any more, so nobody is there to run for.
            handle.stop();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = task.run(PostMail::new(post)) => {}
            () = obey => {}
        }
        if let Some(ledger) = &ledger {
            finish_telling(handle, ledger, &spools, &mut orders).await;
        }
        let _ = close_api.send(());
        keys.abort();
        for tell in tells {
            tell.abort();
        }
        // The log writes what is recorded; the API answers what it has begun.
        let _ = tokio::time::timeout(LAST_ANSWERS, api).await;
        let _ = tokio::time::timeout(LAST_ANSWERS, log).await;
        Ok(())
    })
}

/// Puts the last events on record and gives receivers a moment to hear of them. What they do not hear now they are told
/// by the next life of the server.
async fn finish_telling(
    handle: &control::Handle,
    ledger: &Ledger,
    spools: &[LedgerSpool],
    orders: &mut watch::Receiver<Stop>,
) {
    let last = handle.events_recorded();
    let on_record = async { ledger.committed().wait_for(|number| *number >= last).await.is_ok() };
    if tokio::time::timeout(LAST_RECORDS, on_record).await != Ok(true) {
        tracing::error!(ev = "ledger", "the last events did not reach the disk in time");
    }
    handle.tell_all();
    let told = async {
        for spool in spools {
            while !spool.page(0, 1).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let patience = async {
        let is_fast = async { orders.wait_for(|stop| *stop >= Stop::Fast).await.is_err() };
        if tokio::time::timeout(LAST_TELLS, is_fast).await == Ok(false) {
            let is_now = orders.wait_for(|stop| *stop == Stop::Now);
            // Either way the time is up; who gives orders has gone, or gives the last one, or gave none.
            let _ = tokio::time::timeout(LAST_TELLS_FAST, is_now).await;
        }
    };
    tokio::select! {
        () = told => {}
        () = patience => {
            tracing::warn!(ev = "hook", "receivers have not heard everything yet; the next start tells them");
        }
    }
}

/// How long receivers may take to hear of the last events.
const LAST_TELLS: Duration = Duration::from_secs(5);

/// The same where the server was told to end at once: well within the time after which it is cut off.
const LAST_TELLS_FAST: Duration = Duration::from_secs(1);

/// How long the kernel may take to let go of a killed server's listeners.
const LETTING_GO: Duration = Duration::from_secs(1);

/// How long the last records may take to reach the disk.
const LAST_RECORDS: Duration = Duration::from_secs(3);

/// How long the API and the log may take to finish after the last shard has stopped.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Listeners by shard, and where they really listen.
type Bound = (Vec<Vec<Socket>>, Vec<SocketAddr>);

/// One listener for each shard and address, and the addresses with their real ports.
fn bind_rtmp(config: &Config, shards: usize, claims: &mut Vec<probe::Claim>) -> Result<Bound, StartError> {
    let fail = |at| move |error| StartError::Bind { key: "shard.rtmp_listen", at, error };
    let mut sockets: Vec<Vec<Socket>> = (0..shards).map(|_| Vec::new()).collect();
    let mut real = Vec::new();
    for configured in &config.shard.rtmp_listen {
        let mut at = *configured;
        // Listeners that share a port do not notice another server of the same user that shares it too: this does.
        patiently(|| probe::bind(at)).map_err(fail(at))?;
        if at.port() != 0 {
            claims.push(probe::claim(at).map_err(fail(at))?);
        }
        for of_shard in &mut sockets {
            let socket = tcp::bind(at, config.shard.backlog).map_err(fail(at))?;
            if at.port() == 0 {
                at = socket.local_addr().ok().and_then(|addr| addr.as_socket()).unwrap_or(at);
            }
            of_shard.push(socket);
        }
        real.push(at);
    }
    Ok((sockets, real))
}

/// Tries again for a while what another process still has: the kernel lets go of the listeners in the rings of a server
/// that was killed a moment after that has ended.
fn patiently(attempt: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + LETTING_GO;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

fn bind_api(at: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    std::net::TcpListener::bind(at)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| StartError::Bind { key: "api.listen", at, error })
}

/// A number that differs between shards and starts.
fn seed(shard: u16) -> u64 {
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u16(shard);
    hasher.finish()
}
