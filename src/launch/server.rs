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

impl Stop {
    /// The name used in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Drain { .. } => "drain",
            Self::Fast => "fast",
            Self::Now => "now",
        }
    }
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
    /// Over how long a drain is spread that the API begins without a time, for a new one.
    pub drain_timeout: watch::Sender<Duration>,
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
    // What can fail without any of the threads is tried before there are any.
    let fetcher = Fetcher::new(&config.hook).map_err(|error| StartError::Configuration(error.to_string()))?;
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
    let (drain_timeout, drain_timeout_now) = watch::channel(config.shard.drain_timeout);
    let backend = Server { control: handle.clone(), reloads: reloads_in, drain_timeout: drain_timeout_now };
    let router = crate::api::router_behind(&door, backend, history, &config.api);
    let telling = Telling { ledger, tellers, fetcher };
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            let ledger = telling.ledger.clone();
            let result = run_control(&handle, task, post, api_listener, router, orders.clone(), telling);
            // Control has ended, so nothing is recorded any more; a shard that hangs keeps no file open.
            if let Some(ledger) = ledger {
                let mut patience = Patience::new(&orders, Last::RECORDS);
                while !ledger.stop(Patience::STEP) && !patience.is_over() {}
            }
            for thread in threads {
                while !thread.is_finished() && *orders.borrow() < Stop::Now {
                    std::thread::sleep(Patience::STEP);
                }
                if thread.is_finished() {
                    // A shard whose thread panicked has said so in the log.
                    let _ = thread.join();
                }
            }
            drop(claims);
            let _ = ended_in.send(result);
        })
        .map_err(|error| StartError::Resource { what: "the control thread".into(), error })?;
    Ok(Running { rtmp, api, shards: count, control, door, drain_timeout, reloads, stop, ended })
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
                    Stop::Fast => handle.stop(),
                    Stop::Now => {
                        handle.stop();
                        tokio::time::sleep(LAST_CLOSES).await;
                        return;
                    }
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
            finish_telling(handle, ledger, &spools, &orders).await;
        }
        let _ = close_api.send(());
        keys.abort();
        for tell in tells {
            tell.abort();
        }
        // The log writes what is recorded; the API answers what it has begun.
        let mut last = Patience::new(&orders, Last::ANSWERS);
        last.give(async { tokio::join!(api, log) }).await;
        Ok(())
    })
}

/// Puts the last events on record and gives receivers a moment to hear of them, as far as the order to stop leaves time.
/// What they do not hear now they are told by the next life of the server.
async fn finish_telling(
    handle: &control::Handle,
    ledger: &Ledger,
    spools: &[LedgerSpool],
    orders: &watch::Receiver<Stop>,
) {
    let last = handle.events_recorded();
    let mut committed = ledger.committed();
    let on_record = async { committed.wait_for(|number| *number >= last).await.is_ok() };
    if Patience::new(orders, Last::RECORDS).give(on_record).await != Some(true) {
        tracing::error!(ev = "ledger", "the last events did not reach the disk in time");
    }
    // Control, which lets events go as they come on record, has ended.
    handle.tell_to(*committed.borrow());
    let told = async {
        for spool in spools {
            while spool.page(0, 1).await.is_none_or(|page| !page.is_empty()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    if Patience::new(orders, Last::TELLS).give(told).await.is_none() {
        tracing::warn!(ev = "hook", "receivers have not heard everything yet; the next start tells them");
    }
}

/// How long one of the last things may take: that the order was another hurries what is under way.
struct Patience {
    orders: watch::Receiver<Stop>,
    /// The order that `until` was reckoned for.
    stop: Stop,
    last: Last,
    until: tokio::time::Instant,
}

/// What may take so long while there is time, when every session was closed at once, and when it is to end now.
#[derive(Clone, Copy)]
struct Last {
    calm: Duration,
    fast: Duration,
    now: Duration,
}

impl Last {
    /// The last records' way to the disk.
    const RECORDS: Self =
        Self { calm: Duration::from_secs(3), fast: Duration::from_secs(1), now: Duration::from_millis(250) };
    /// The last events' way to receivers.
    const TELLS: Self = Self { calm: Duration::from_secs(5), fast: Duration::from_secs(1), now: Duration::ZERO };
    /// What the API and the log have begun.
    const ANSWERS: Self =
        Self { calm: Duration::from_millis(500), fast: Duration::from_millis(500), now: Duration::from_millis(100) };

    fn within(self, stop: Stop) -> Duration {
        match stop {
            Stop::No | Stop::Drain { .. } => self.calm,
            Stop::Fast => self.fast,
            Stop::Now => self.now,
        }
    }
}

impl Patience {
    /// How often orders are looked at by what cannot wait for them.
    const STEP: Duration = Duration::from_millis(10);

    /// Begins now.
    fn new(orders: &watch::Receiver<Stop>, last: Last) -> Self {
        let mut orders = orders.clone();
        let stop = *orders.borrow_and_update();
        Self { orders, stop, last, until: tokio::time::Instant::now() + last.within(stop) }
    }

    /// Waits for `work` as long as there is time; nothing when there was not enough.
    async fn give<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        let mut is_watched = true;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = tokio::time::sleep_until(self.until) => return None,
                changed = self.orders.changed(), if is_watched => {
                    // Whoever gave orders may have gone; then there will be no other.
                    is_watched = changed.is_ok();
                    self.hurry();
                }
            }
        }
    }

    /// The same for what asks again and again.
    fn is_over(&mut self) -> bool {
        self.hurry();
        self.until <= tokio::time::Instant::now()
    }

    fn hurry(&mut self) {
        let stop = *self.orders.borrow_and_update();
        if stop > self.stop {
            self.stop = stop;
            self.until = self.until.min(tokio::time::Instant::now() + self.last.within(stop));
        }
    }
}

/// How long the kernel may take to let go of a killed server's listeners.
const LETTING_GO: Duration = Duration::from_secs(1);

/// How long shards may take to close what they have once the end is to be now.
const LAST_CLOSES: Duration = Duration::from_millis(200);

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

#[cfg(all(test, feature = "faults"))]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::names::{ConnectionId, Kind, Name, Protocol, SessionId, StreamKey};
    use crate::session::{Change, Facts, What};
    use crate::shard::mail::ToControl;

    fn opened(now: Instant) -> Event {
        let name = |text| Name::app(text).unwrap();
        let facts = Facts {
            id: SessionId::new(1_795_176_000_000, [0; 10]),
            connection: ConnectionId::new(ShardId(0), 1),
            shard: ShardId(0),
            kind: Kind::Publish,
            protocol: Protocol::Rtmp,
            key: StreamKey::new(&name("default"), &name("live"), &Name::stream("cam").unwrap()),
            asked_key: None,
            remote: "192.0.2.1:5000".parse().unwrap(),
            local: "192.0.2.9:1935".parse().unwrap(),
            opened_at: now,
            opened_unix_ms: 1_795_176_000_000,
            query: None,
            user_agent: None,
            referrer: None,
            tc_url: None,
            swf_url: None,
            user: None,
            labels: Arc::default(),
        };
        Event::Session(Change { facts: Arc::new(facts), seq: 1, at: now, what: What::Opened })
    }

    #[test]
    fn what_did_not_reach_the_disk_is_told_to_nobody_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            crate::ledger::Settings { directory: folder.path().to_str().unwrap().into(), ..Default::default() };
        let (now, wall) = (Instant::now(), WallAnchor::now());
        let full: crate::ledger::Obstacle = Arc::new(|_, _| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            Err(rusqlite::Error::SqliteFailure(code, None))
        });
        let ledger = crate::ledger::open(&settings, wall, now).unwrap().with_obstacle(full).start().unwrap();
        let setup = control::Setup {
            wall,
            started_at: now,
            shards: 1,
            control: control::Settings::default(),
            stream: crate::stream::Settings::default(),
            duplicate_publish: crate::admission::settings::DuplicatePublish::default(),
        };
        let record = Some((ledger.clone(), Duration::from_secs(5)));
        let outside = control::Outside { ledger: record, ..control::Outside::alone() };
        let (handle, task) = control::start(&setup, outside);
        let (post, _sleepers) = Post::new(1).unwrap();
        assert!(post.to_control(ShardId(0), ToControl::Event(opened(now))).is_ok());
        assert!(post.to_control(ShardId(0), ToControl::Stopped).is_ok());
        let (_stop, orders) = watch::channel(Stop::Now);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            task.run(PostMail::new(post)).await;
            finish_telling(&handle, &ledger, &[], &orders).await;
        });
        assert!(handle.events_recorded() > 0);
        assert!(handle.try_next_event(&mut handle.subscribe(Some(0))).is_none(), "it is on no record");
        assert!(ledger.stop(Duration::from_secs(10)));
    }
}
