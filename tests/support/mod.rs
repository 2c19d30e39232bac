//! What tests that start the real server share: the server itself, its API, foreign programs, raw sockets.
#![allow(dead_code, reason = "each test target uses its part")]

pub mod back_end;
pub mod calm;
pub mod hand;
pub mod peers;
pub mod raw;

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything in these tests may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server with a configuration of its own.
pub struct Server {
    child: Child,
    /// Where RTMP listens.
    pub rtmp: SocketAddr,
    /// Where the API listens.
    pub api: SocketAddr,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server on free ports with `extra` configuration (TOML sections) and waits until it is ready.
    pub fn start(extra: &str) -> Self {
        Self::start_with_errors_to(extra, None)
    }

    /// The same with its standard error elsewhere than in the log file.
    pub fn start_with_errors_to(extra: &str, errors: Option<Stdio>) -> Self {
        let (rtmp, api) = (free_port(), free_port());
        let dir = tempfile::tempdir().unwrap();
        let mut config = String::new();
        let mut shard = format!("rtmp_listen = [\"{rtmp}\"]\n");
        let mut admission = String::from("publish = \"open\"\n");
        let mut rest = String::new();
        // Sections that we write too are merged: a table may stand only once.
        let mut section = String::new();
        for line in extra.lines() {
            if line.trim_start().starts_with('[') {
                section = line.trim().to_owned();
                if !matches!(section.as_str(), "[shard]" | "[admission]" | "[api]") {
                    writeln!(rest, "{line}").unwrap();
                }
                continue;
            }
            match section.as_str() {
                "[shard]" => writeln!(shard, "{line}").unwrap(),
                "[admission]" if line.trim_start().starts_with("publish") => line.clone_into(&mut admission),
                "[admission]" => writeln!(admission, "{line}").unwrap(),
                _ => writeln!(rest, "{line}").unwrap(),
            }
        }
        // All peers of a test are one source, and a busy test machine is late for everything.
        for (key, off) in [("unauthenticated_per_ip", "0"), ("accept_rate_per_ip", "0"), ("loop_lag_max", "\"0\"")] {
            if !shard.contains(key) {
                writeln!(shard, "{key} = {off}").unwrap();
            }
        }
        write!(config, "[shard]\n{shard}\n[admission]\n{admission}\n[api]\nlisten = \"{api}\"\nrate = 100000\n{rest}")
            .unwrap();
        std::fs::write(dir.path().join("sluicegate.toml"), &config).unwrap();
        let child = spawn(dir.path(), errors);
        let mut server = Self { child, rtmp, api, dir };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/readyz").0 != 200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                let config = std::fs::read_to_string(self.config_path()).unwrap();
                panic!("the server ended with {status}:\n{}\nwith\n{config}", self.log());
            }
            assert!(Instant::now() < deadline, "the server is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the process without a word, as a power failure would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server anew with the same configuration, ports and folder, after it has ended. Returns how long it took
    /// until it was ready.
    pub fn start_again(&mut self) -> Duration {
        assert!(self.child.try_wait().unwrap().is_some(), "the server still runs");
        let began = Instant::now();
        self.child = spawn(self.dir.path(), None);
        self.wait_until_ready();
        began.elapsed()
    }

    /// Starts the server anew after it has ended, and kills it this much later, ready or not.
    pub fn start_and_kill(&mut self, after: Duration) {
        assert!(self.child.try_wait().unwrap().is_some(), "the server still runs");
        self.child = spawn(self.dir.path(), None);
        std::thread::sleep(after);
        self.kill();
    }

    /// A folder for its ledger, as `[ledger]` names it.
    pub fn ledger_of(dir: &tempfile::TempDir) -> String {
        format!("[ledger]\ndirectory = \"{}\"\n", dir.path().join("ledger").display())
    }

    /// The address to publish to or play from.
    pub fn url(&self, app_and_stream: &str) -> String {
        format!("rtmp://{}/{app_and_stream}", self.rtmp)
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("sluicegate.toml")
    }

    /// Puts another configuration in place of the file's at once, as an editor does.
    pub fn replace_config(&self, text: &str) {
        let fresh = self.dir.path().join("sluicegate.toml.new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.config_path()).unwrap();
    }

    /// What the server wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sets how many descriptors the server may have open from now on.
    pub fn limit_descriptors(&self, count: u64) {
        let limit = libc::rlimit { rlim_cur: count, rlim_max: self.descriptors_before().rlim_max };
        // SAFETY: the pointer is to one initialised `rlimit` that lives past the call; the process is our child.
        let done = unsafe { libc::prlimit(self.pid(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(done, 0);
    }

    fn descriptors_before(&self) -> libc::rlimit {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to one `rlimit` that lives past the call, which fills it.
        let done = unsafe { libc::prlimit(self.pid(), libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) };
        assert_eq!(done, 0);
        limit
    }

    /// How many descriptors the server has open.
    pub fn descriptors(&self) -> u64 {
        self.descriptor_numbers().len() as u64
    }

    /// The lowest descriptor that the server does not use, once it has let go of what it was asked with: a limit of so
    /// many leaves it none.
    pub fn lowest_free_descriptor(&self) -> u64 {
        let mut used = self.descriptor_numbers();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let again = self.descriptor_numbers();
            if again == used {
                return (0..).find(|number| !used.contains(number)).unwrap();
            }
            used = again;
        }
    }

    fn descriptor_numbers(&self) -> std::collections::BTreeSet<u64> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    /// The sum of a metric over all its series that have `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let (status, metrics) = self.call_text("GET", "/metrics", None);
        assert_eq!(status, 200);
        let is_series = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        };
        metrics.lines().filter(is_series).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes numbers; the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Waits for the process to end.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `GET`, with the body as JSON (or null).
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, None)
    }

    /// A request with an optional JSON body.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, text) = self.call_text(method, path, body);
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The same with the body as it came.
    pub fn call_text(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let Ok(mut socket) = TcpStream::connect(self.api) else { return (0, String::new()) };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        );
        if socket.write_all(request.as_bytes()).is_err() {
            return (0, String::new());
        }
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, String::new()) };
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            dechunk(body)
        } else {
            body.to_owned()
        };
        (status, body)
    }

    /// The sessions that match a filter (`kind=play&stream=a`), oldest first.
    pub fn sessions(&self, filter: &str) -> Vec<Value> {
        let (status, body) = self.get(&format!("/v1/sessions?limit=1000&{filter}"));
        assert_eq!(status, 200, "{body}");
        body["sessions"].as_array().expect("a list of sessions").clone()
    }

    /// Waits until `count` sessions match a filter.
    pub fn wait_for_sessions(&self, filter: &str, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sessions = self.sessions(filter);
            if sessions.len() == count {
                return sessions;
            }
            assert!(
                Instant::now() < deadline,
                "{} sessions instead of {count} for {filter}: {sessions:#?}\n{}",
                sessions.len(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The metrics as they are now.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.call_text("GET", "/metrics", None);
        assert_eq!(status, 200, "{text}");
        Metrics(text)
    }

    /// `GET /v1/node`.
    pub fn node(&self) -> Value {
        let (status, node) = self.get("/v1/node");
        assert_eq!(status, 200, "{node}");
        node
    }

    /// A number of the shards together, as `/v1/node` names it.
    pub fn shards(&self, field: &str) -> u64 {
        let node = self.node();
        let shards = node["shards"].as_array().expect("shards");
        shards.iter().map(|shard| shard[field].as_u64().unwrap_or_else(|| panic!("{field} in {shard:#}"))).sum()
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.node()["memory"]["rss_bytes"].as_u64().expect("a count")
    }

    /// Waits until every shard has reported anew, twice: what happened before the call is in the numbers then.
    pub fn settle(&self) {
        std::thread::sleep(Duration::from_millis(600));
    }

    /// Every event with one of these names (or of these groups) since the server's start, in order: its name and data.
    pub fn events(&self, names: &str) -> Vec<(String, Value)> {
        let (status, text) = self.call_text("GET", &format!("/v1/events?after=0-0&for=200ms&event={names}"), None);
        assert_eq!(status, 200, "{text}");
        let field = |event: &str, name: &str| {
            event.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
        };
        let all = text.split("\n\n").filter_map(|event| {
            let data = serde_json::from_str(&field(event, "data:")?).expect("an event's data is JSON");
            Some((field(event, "event:")?, data))
        });
        all.filter(|(name, _)| name != "gap").collect()
    }

    /// Waits for the record of a connection that never became a session, and gives its reason and detail.
    pub fn wait_for_attempt(&self, remote: SocketAddr) -> (String, String) {
        let deadline = Instant::now() + PATIENCE;
        let remote = remote.to_string();
        loop {
            let mut attempts = self.events("attempt");
            attempts.retain(|(_, data)| data["remote"] == remote);
            if let [(_, data)] = &attempts[..] {
                let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
                return (text("reason"), text("detail"));
            }
            assert!(attempts.len() < 2, "one connection, several attempts: {attempts:#?}");
            assert!(Instant::now() < deadline, "no attempt of {remote} is recorded:\n{}", self.log());
        }
    }

    /// Waits until a session is over and returns it.
    pub fn wait_for_end(&self, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, session) = self.get(&format!("/v1/sessions/{id}"));
            assert_eq!(status, 200, "{session}");
            if session["state"] == "finished" {
                return session;
            }
            assert!(Instant::now() < deadline, "the session does not end: {session:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Runs the server of a folder; its log there grows.
fn spawn(dir: &std::path::Path, errors: Option<Stdio>) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("server.log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .arg("run")
        .arg("-c")
        .arg(dir.join("sluicegate.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(errors.unwrap_or_else(|| log.into()))
        .spawn()
        .expect("the server starts")
}

/// The metrics of one moment.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of a metric over all its series that have `label`.
    pub fn sum(&self, name: &str, label: &str) -> u64 {
        let is_of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let series = self.0.lines().filter(is_of).filter(|line| line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- server log ---\n{}", self.log());
        }
    }
}

/// An address on loopback that nobody uses. Ports are handed out from below the range of outgoing connections, so that
/// none of those takes one in the meantime; the process id keeps parallel test processes apart.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + u16::try_from(std::process::id() % 1_100).unwrap() * 20;
    for _ in 0..2_000 {
        let port = base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed) % 2_000) % 22_000 + 10_000;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no free port");
}

/// A directory for files of one test.
pub fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    (dir, path)
}

/// Waits until `what` holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn dechunk(body: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || after.len() < size {
            break;
        }
        out.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    out
}
