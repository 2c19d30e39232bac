//! A back end of our own: it answers what it is asked as a test says, logs what it is told, and checks every signature.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::Value;

use super::{eventually, free_port};

/// What requests are signed with.
pub const SECRET: &str = "b3BlbiBzZXNhbWUgcGxlYXNl";

/// What the back end says to a question.
#[derive(Clone, Debug)]
pub struct Say {
    status: u16,
    body: String,
    after: Duration,
}

impl Say {
    /// A yes on these terms.
    pub fn yes(terms: Value) -> Self {
        let mut body = terms;
        body["allow"] = true.into();
        Self { status: 200, body: body.to_string(), after: Duration::ZERO }
    }

    /// A no, with words for the peer's user.
    pub fn no(text: &str) -> Self {
        let body = serde_json::json!({ "allow": false, "text": text }).to_string();
        Self { status: 200, body, after: Duration::ZERO }
    }

    /// A no, with words for the peer's user and where to go instead.
    pub fn elsewhere(text: &str, url: &str) -> Self {
        let body = serde_json::json!({ "allow": false, "text": text, "redirect": url }).to_string();
        Self { status: 200, body, after: Duration::ZERO }
    }

    /// No answer that means anything.
    pub fn status(status: u16) -> Self {
        Self { status, body: String::new(), after: Duration::ZERO }
    }

    /// The same, later.
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

type Script = Arc<dyn Fn(&Value) -> Say + Send + Sync>;

/// See the module.
pub struct BackEnd {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    is_up: bool,
    script: Script,
    /// Every so many requests that tell, one is answered with 500; 0 is never.
    fails_every: u64,
    asked: Vec<Value>,
    /// What it gives to whoever fetches it, by path, and how often each was fetched.
    documents: BTreeMap<String, (String, usize)>,
    /// Every event that was taken, in the order of their answers, and its id.
    told: Vec<Value>,
    ids: BTreeSet<String>,
    /// Events that came although they had been taken before.
    repeats: usize,
    /// Requests that tell, and those of them that were answered with 500.
    requests: (u64, u64),
    troubles: Vec<String>,
    open: Vec<TcpStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl BackEnd {
    /// One that says yes to everybody.
    pub fn start() -> Self {
        Self::answering(|_| Say::yes(serde_json::json!({})))
    }

    /// One that answers questions so.
    pub fn answering(script: impl Fn(&Value) -> Say + Send + Sync + 'static) -> Self {
        let state = State {
            is_up: false,
            script: Arc::new(script),
            fails_every: 0,
            asked: Vec::new(),
            documents: BTreeMap::new(),
            told: Vec::new(),
            ids: BTreeSet::new(),
            repeats: 0,
            requests: (0, 0),
            troubles: Vec::new(),
            open: Vec::new(),
        };
        let it = Self { address: free_port(), shared: Arc::new(Shared { state: Mutex::new(state) }) };
        it.go_up();
        it
    }

    /// Answers otherwise from now on.
    pub fn answer(&self, script: impl Fn(&Value) -> Say + Send + Sync + 'static) {
        self.shared.state().script = Arc::new(script);
    }

    /// Of so many requests that tell, one is answered with 500 from now on.
    pub fn fail_every(&self, every: u64) {
        self.shared.state().fails_every = every;
    }

    /// Is not there any more: its port is closed, and so is every connection.
    pub fn go_down(&self) {
        let mut state = self.shared.state();
        state.is_up = false;
        for open in state.open.drain(..) {
            let _ = open.shutdown(Shutdown::Both);
        }
        drop(state);
        // Wakes the thread that accepts, which then lets the port go.
        let _ = TcpStream::connect(self.address);
        eventually("the port is closed", || TcpStream::connect(self.address).is_err());
    }

    /// Is back, on the same port.
    pub fn go_up(&self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.shared.state().is_up = true;
        let shared = Arc::clone(&self.shared);
        // The thread ends when the back end goes down, or with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if !shared.state().is_up {
                    return;
                }
                let Ok(stream) = stream else { continue };
                shared.state().open.push(stream.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
    }

    /// `[[hook.ask]]` for this back end, with these other keys.
    pub fn ask(&self, keys: &str) -> String {
        format!(
            "[[hook.ask]]\nname = \"auth\"\nurl = \"http://{}/ask\"\nsecrets = [\"{SECRET}\"]\n{keys}\n",
            self.address
        )
    }

    /// `[[hook.tell]]` for this back end, with these other keys.
    pub fn tell(&self, keys: &str) -> String {
        format!(
            "[[hook.tell]]\nname = \"log\"\nurl = \"http://{}/tell\"\nsecrets = [\"{SECRET}\"]\n{keys}\n",
            self.address
        )
    }

    /// Gives this to whoever fetches `path` from now on, and returns its URL.
    pub fn publish(&self, path: &str, text: &str) -> String {
        let mut state = self.shared.state();
        state.documents.entry(path.to_owned()).or_default().0 = text.to_owned();
        format!("http://{}{path}", self.address)
    }

    /// How often a document was fetched.
    pub fn fetched(&self, path: &str) -> usize {
        self.shared.state().documents.get(path).map_or(0, |(_, count)| *count)
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Value> {
        self.shared.state().asked.clone()
    }

    /// What it was told, each event once, in the order in which they came first.
    pub fn told(&self) -> Vec<Value> {
        self.shared.state().told.clone()
    }

    /// Requests that told something, and how many of them were answered with 500.
    pub fn requests(&self) -> (u64, u64) {
        self.shared.state().requests
    }

    /// What it was told of one kind, such as `session.closed`.
    pub fn told_of(&self, name: &str) -> Vec<Value> {
        self.told().into_iter().filter(|event| event["type"] == name).collect()
    }

    /// Waits until it was told of the end of so many sessions.
    pub fn wait_for_ends(&self, count: usize) -> Vec<Value> {
        eventually("the ends are told", || self.told_of("session.closed").len() >= count);
        self.told_of("session.closed")
    }

    /// Events that were told again although they had been taken: what is allowed when an answer may have been lost.
    pub fn repeats(&self) -> usize {
        self.shared.state().repeats
    }

    /// Everything was rightly signed; the events of each session came in order, one that opens it first and one that
    /// closes it last. Returns the sessions with the events of each.
    pub fn assert_whole(&self) -> BTreeMap<String, Vec<Value>> {
        let state = self.shared.state();
        assert_eq!(state.troubles, [] as [String; 0]);
        let mut sessions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for event in &state.told {
            if let Some(session) = event["session"]["id"].as_str() {
                sessions.entry(session.to_owned()).or_default().push(event.clone());
            }
        }
        for (session, events) in &sessions {
            let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
            assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{session} out of order: {events:#?}");
            let count = |name| events.iter().filter(|event| event["type"] == name).count();
            assert_eq!((count("session.opened"), count("session.closed")), (1, 1), "{session}: {events:#?}");
            assert!(count("session.started") < 2, "{session}: {events:#?}");
            assert_eq!(events[0]["type"], "session.opened", "{session}");
            assert_eq!(events[events.len() - 1]["type"], "session.closed", "{session}");
        }
        sessions
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        while let Some((head, body)) = read_request(&mut stream) {
            let document: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let said = match head.split(' ').nth(1) {
                Some(path) if head.starts_with("GET ") => self.give(path),
                Some("/ask") => {
                    let script = {
                        let mut state = self.state();
                        state.troubles.extend(trouble(&head, &body));
                        state.asked.push(document.clone());
                        Arc::clone(&state.script)
                    };
                    script(&document)
                }
                _ => Say::status(self.hear(&head, &body, &document)),
            };
            std::thread::sleep(said.after);
            let Say { status, body, .. } = said;
            let mut answer = format!("HTTP/1.1 {status} X\r\n");
            if status != 204 {
                write!(answer, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()).unwrap();
            }
            if write!(stream, "{answer}\r\n{body}").is_err() {
                return;
            }
        }
    }

    fn give(&self, path: &str) -> Say {
        let mut state = self.state();
        let Some((text, count)) = state.documents.get_mut(path) else { return Say::status(404) };
        *count += 1;
        Say { status: 200, body: text.clone(), after: Duration::ZERO }
    }

    /// Takes what it is told, if it is in the mood.
    fn hear(&self, head: &str, body: &[u8], document: &Value) -> u16 {
        let mut state = self.state();
        state.requests.0 += 1;
        if state.fails_every > 0 && state.requests.0.is_multiple_of(state.fails_every) {
            state.requests.1 += 1;
            return 500;
        }
        state.troubles.extend(trouble(head, body));
        let alone = std::slice::from_ref(document);
        for event in document["events"].as_array().map_or(alone, Vec::as_slice) {
            let id = event["event_id"].as_str().unwrap_or_default();
            if state.ids.insert(id.to_owned()) {
                state.told.push(event.clone());
            } else {
                state.repeats += 1;
            }
        }
        204
    }
}

/// What is wrong with the signature, if anything is.
fn trouble(head: &str, body: &[u8]) -> Option<String> {
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    };
    let (Some(time), Some(id)) = (header("sluicegate-timestamp"), header("sluicegate-event-id")) else {
        return Some(format!("headers are missing: {head}"));
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", id.as_bytes(), b".", body].concat();
    let mut ours = String::from("v1=");
    for byte in hmac::sign(&key, &signed).as_ref() {
        write!(ours, "{byte:02x}").unwrap();
    }
    (header("sluicegate-signature") != Some(&ours)).then(|| format!("the signature is wrong: {head}"))
}

fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 16 << 10]);
    let mut read_more = |bytes: &mut Vec<u8>| {
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        Some(())
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        read_more(&mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lengths = head.lines().filter_map(|line| line.split_once(':'));
    let length = lengths.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, value)| value.trim().parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        read_more(&mut body)?;
    }
    Some((head, body))
}
