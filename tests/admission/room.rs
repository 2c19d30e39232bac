//! A desk on a virtual clock, with everything that it said so far.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::admission::{
    Action, Answer, AskId, AtLimit, Desk, EgressScope, Failure, Gate, HookRule, Measured, Note, Settings, Terms,
    Verdict, Why,
};
use sluicegate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::{CloseReason, Facts, Reason};
use sluicegate::stdx::clock::WallAnchor;

use crate::support::address;

/// When every test begins: 2026-11-20 12:00 UTC.
pub const START_UNIX: u64 = 1_795_176_000;

pub const SECOND: Duration = Duration::from_secs(1);

pub struct Room {
    pub desk: Desk,
    pub now: Instant,
    pub rates: Rates,
    pub verdicts: BTreeMap<u64, Verdict>,
    pub asks: Vec<(AskId, usize, Arc<Facts>, Why)>,
    pub ends: Vec<(SessionId, CloseReason)>,
    /// What the peers of [`ends`](Self::ends) read.
    pub last_words: Vec<Option<Box<str>>>,
    pub notes: Vec<Note>,
    start: Instant,
    questions: u64,
    sessions: u64,
}

/// Measured rates that a test sets.
#[derive(Default)]
pub struct Rates {
    pub streams: HashMap<String, u64>,
    pub egress: HashMap<String, u64>,
    /// Every stream has a publisher that nobody takes over.
    pub taken: bool,
    /// Whose egress the desk wanted to know.
    pub asked: RefCell<Vec<String>>,
}

impl Measured for Rates {
    fn stream_bps(&self, key: &StreamKey) -> u64 {
        self.streams.get(&key.to_string()).copied().unwrap_or(0)
    }

    fn egress_bps(&self, scope: EgressScope<'_>) -> u64 {
        let name = match scope {
            EgressScope::Stream(key) => key.to_string(),
            EgressScope::App(vhost, app) => format!("{vhost}/{app}"),
            EgressScope::Server => String::new(),
        };
        self.asked.borrow_mut().push(name.clone());
        self.egress.get(&name).copied().unwrap_or(0)
    }

    fn refuses_publisher(&self, _facts: &Facts) -> bool {
        self.taken
    }
}

impl Room {
    pub fn new(settings: &Settings, hooks: Vec<HookRule>) -> Self {
        let now = Instant::now();
        let gate = Arc::new(Gate::new(settings, &hooks));
        let wall = WallAnchor::at(now, Duration::from_secs(START_UNIX));
        Self {
            desk: Desk::new(settings, hooks, gate, wall).unwrap(),
            now,
            rates: Rates::default(),
            verdicts: BTreeMap::new(),
            asks: Vec::new(),
            ends: Vec::new(),
            last_words: Vec::new(),
            notes: Vec::new(),
            start: now,
            questions: 0,
            sessions: 0,
        }
    }

    /// A peer at 192.0.2.1 on `live/<stream>`.
    pub fn peer(&mut self, kind: Kind, stream: &str, query: &str) -> Arc<Facts> {
        self.peer_at(kind, &format!("live/{stream}"), query, "192.0.2.1")
    }

    pub fn peer_at(&mut self, kind: Kind, path: &str, query: &str, from: &str) -> Arc<Facts> {
        self.sessions += 1;
        let (app, stream) = path.split_once('/').unwrap();
        let name = |text| Name::app(text).unwrap();
        let mut tail = [0; 10];
        tail[2..].copy_from_slice(&self.sessions.to_be_bytes());
        Arc::new(Facts {
            id: SessionId::new(START_UNIX * 1_000, tail),
            connection: ConnectionId::new(ShardId(0), self.sessions),
            shard: ShardId(0),
            kind,
            protocol: Protocol::Rtmp,
            key: StreamKey::new(&name("default"), &name(app), &Name::stream(stream).unwrap()),
            asked_key: None,
            remote: SocketAddr::new(address(from), 40_000),
            local: SocketAddr::from(([198, 51, 100, 1], 1935)),
            opened_at: self.now,
            opened_unix_ms: START_UNIX * 1_000,
            query: Some(query).filter(|query| !query.is_empty()).map(Into::into),
            user_agent: None,
            referrer: None,
            tc_url: None,
            swf_url: None,
            user: None,
            labels: Arc::default(),
        })
    }

    /// Asks for a peer; the number of its question.
    pub fn ask(&mut self, facts: &Arc<Facts>) -> u64 {
        self.questions += 1;
        self.desk.handle_ask(self.now, self.questions, facts.clone(), &self.rates);
        self.drain();
        self.questions
    }

    /// Asks for a peer on `live/<stream>` and gives the verdict, which must be there at once.
    pub fn verdict(&mut self, kind: Kind, stream: &str, query: &str) -> Verdict {
        let facts = self.peer(kind, stream, query);
        self.verdict_on(&facts)
    }

    pub fn verdict_on(&mut self, facts: &Arc<Facts>) -> Verdict {
        let question = self.ask(facts);
        self.verdicts.get(&question).expect("a verdict at once").clone()
    }

    /// The verdict on a question, if it has one.
    pub fn said(&self, question: u64) -> Option<Result<(), CloseReason>> {
        self.verdicts.get(&question).map(|verdict| verdict.as_ref().map(|_| ()).map_err(|refusal| refusal.reason))
    }

    /// Answers the oldest question to a back end.
    pub fn answer(&mut self, answer: Answer) {
        let (id, ..) = self.asks.remove(0);
        self.desk.handle_answer(self.now, id, answer, &self.rates);
        self.drain();
    }

    /// A rule's key set was read.
    pub fn keys(&mut self, rule: usize, from: &str, text: &str) {
        self.desk.set_jwks(rule, from, text).unwrap();
        self.desk.handle_keys(self.now, rule, &self.rates);
        self.drain();
    }

    pub fn close(&mut self, facts: &Facts) {
        self.desk.handle_closed(self.now, facts.id, &self.rates);
        self.drain();
    }

    /// Lets time pass, from one due instant to the next.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.desk.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.desk.handle_timeout(self.now, &self.rates);
            self.drain();
        }
        self.now = until;
    }

    /// Lets time pass until a back end is asked; how long that took.
    pub fn wait_for_ask(&mut self) -> Duration {
        let before = self.now;
        while self.asks.is_empty() {
            let due = self.desk.next_due().expect("something is due");
            self.wait(due.saturating_duration_since(self.now));
        }
        self.now - before
    }

    /// The wall clock jumps by `seconds`.
    pub fn step_clock(&mut self, seconds: i64) {
        let since = Duration::from_secs(START_UNIX.checked_add_signed(seconds).unwrap());
        self.desk.handle_clock(self.now, WallAnchor::at(self.start, since));
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(action) = self.desk.poll() {
            match action {
                Action::Verdict { question, verdict } => {
                    assert!(self.verdicts.insert(question, verdict).is_none(), "two verdicts on question {question}");
                }
                Action::Ask { id, hook, facts, why } => self.asks.push((id, hook, facts, why)),
                Action::End { session, reason, text } => {
                    self.ends.push((session, reason));
                    self.last_words.push(text);
                }
                Action::Note { note, .. } => self.notes.push(note),
            }
        }
    }
}

/// A millisecond less.
pub fn shortly_before(time: Duration) -> Duration {
    time.saturating_sub(Duration::from_millis(1))
}

pub fn allow(terms: Terms) -> Answer {
    Answer::Allow(Box::new(terms))
}

pub fn deny() -> Answer {
    Answer::Deny { text: None, redirect: None, cache_for: None }
}

pub fn timeout() -> Answer {
    Answer::Failure(Failure::Timeout)
}

pub fn terms_of(user: &str) -> Terms {
    Terms { user: Some(user.into()), ..Terms::default() }
}

pub fn limited(user: &str, sessions_max: u32, at_limit: AtLimit) -> Terms {
    Terms { sessions_max: Some(sessions_max), at_limit: Some(at_limit), ..terms_of(user) }
}

pub fn refused(reason: Reason, detail: &'static str) -> CloseReason {
    CloseReason::with(reason, detail)
}

/// The reason of a refusal.
pub fn why(verdict: &Verdict) -> CloseReason {
    verdict.as_ref().expect_err("a refusal").reason
}
