//! Parcels, a spool in memory, questions, and back ends that answer whatever a test wants.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicegate::event::Weight;
use sluicegate::hook::{Parcel, Question, Settings, Spool, Why};
use sluicegate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::Facts;

/// The longest that a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn session(number: u64) -> SessionId {
    let mut tail = [0; 10];
    tail[..8].copy_from_slice(&number.to_be_bytes());
    SessionId::new(1_795_155_521_000, tail)
}

pub fn parcel(id: i64, session: Option<SessionId>, weight: Weight) -> Parcel {
    let body = Bytes::from(format!("{{\"id\":{id}}}"));
    Parcel { id, event_id: format!("event-{id}").into(), session, weight, body }
}

/// A spool that keeps the contract. Clones are the same.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<i64, Parcel>>>);

impl Memory {
    pub fn put(&self, parcel: Parcel) {
        self.0.lock().unwrap().insert(parcel.id, parcel);
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn page_now(&self, after: i64, limit: usize) -> Vec<Parcel> {
        self.0.lock().unwrap().range(after + 1..).take(limit).map(|(_, parcel)| parcel.clone()).collect()
    }

    /// How many of these it had.
    pub fn remove(&self, ids: &[i64]) -> usize {
        let mut held = self.0.lock().unwrap();
        ids.iter().filter(|id| held.remove(id).is_some()).count()
    }
}

impl Spool for Memory {
    async fn page(&self, after: i64, limit: usize) -> Option<Vec<Parcel>> {
        Some(self.page_now(after, limit))
    }

    fn done(&self, ids: Vec<i64>) {
        assert_eq!(self.remove(&ids), ids.len(), "something is done twice: {ids:?}");
    }
}

pub fn facts() -> Facts {
    let name = |text| Name::app(text).unwrap();
    Facts {
        id: session(1),
        connection: ConnectionId::new(ShardId(0), 7),
        shard: ShardId(0),
        kind: Kind::Publish,
        protocol: Protocol::Rtmp,
        key: StreamKey::new(&name("default"), &name("live"), &Name::stream("cam").unwrap()),
        asked_key: None,
        remote: "192.0.2.1:5000".parse().unwrap(),
        local: "192.0.2.9:1935".parse().unwrap(),
        opened_at: Instant::now(),
        opened_unix_ms: 1_795_155_521_000,
        query: Some("token=open-sesame".into()),
        user_agent: Some("FMLE/3.0".into()),
        referrer: Some("https://site.example/page?visitor=open-sesame".into()),
        tc_url: Some("rtmp://edge.example/live?token=open-sesame".into()),
        swf_url: None,
        user: None,
        labels: Arc::default(),
    }
}

pub fn question() -> Question {
    Question { facts: Arc::new(facts()), counters: None, why: Why::Open, unix_ms: 1_795_155_521_100 }
}

/// Settings with one back end that is asked, and short times.
pub fn asking(url: &str) -> Settings {
    let text = format!(
        "connect_timeout = \"2s\"\ndecide_timeout = \"2s\"\n\
         [[ask]]\nname = \"auth\"\nurl = \"{url}\"\nsecrets = [\"{SECRET}\"]\n"
    );
    toml::from_str(&text).unwrap()
}

pub const SECRET: &str = "b3BlbiBzZXNhbWUgcGxlYXNl";

/// One request as a back end read it.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A back end on a real socket. It hands each request to `serve`, which writes what it likes to the connection and says
/// whether to go on with it.
pub struct BackEnd {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Request>>>,
    pub connections: Arc<Mutex<usize>>,
}

impl BackEnd {
    pub fn start(serve: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (serve, kept, opened) = (Arc::new(serve), Arc::clone(&seen), Arc::clone(&connections));
        // The threads end with their connections, and the listener's with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), serve, kept) = (stream, Arc::clone(&serve), Arc::clone(&kept)) else { continue };
                *opened.lock().unwrap() += 1;
                std::thread::spawn(move || {
                    while let Some(request) = read_request(&mut stream) {
                        kept.lock().unwrap().push(request.clone());
                        if !serve(&request, &mut stream) {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen, connections }
    }

    /// One that always says the same.
    pub fn saying(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |_, stream| stream.write_all(&response).is_ok())
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// A response with its length.
pub fn response(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut request = Request { head, body: bytes[end + 4..].to_vec() };
            let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
            while request.body.len() < length {
                let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
                request.body.extend_from_slice(&piece[..read]);
            }
            return Some(request);
        }
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// Waits on a runtime until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come to pass: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
