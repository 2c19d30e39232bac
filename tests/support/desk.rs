//! A control that is a model, a bus and a list of the orders it got; and a client that asks a router directly.
#![allow(dead_code, reason = "each test target uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use sluicegate::admission::{Ban, Whom};
use sluicegate::api::backend::{Answer, ReloadError, Reloaded};
use sluicegate::api::{Backend, Settings, router};
use sluicegate::control::view::{Rates, SessionRow};
use sluicegate::control::{CommandError, Dependencies, Terminate, Terminated, View};
use sluicegate::event::{Bus, Cursor, Event, Recorded};
use sluicegate::ledger::history::History;
use sluicegate::names::{Kind, Name, SessionId, StreamKey};
use sluicegate::session::{CloseReason, Counters, Facts, State};
use sluicegate::stdx::clock::WallAnchor;
use tokio::sync::Notify;
use tower::ServiceExt as _;

/// 2026-11-20T05:38:41Z, when the server of these tests started.
pub const START_S: u64 = 1_795_153_121;

/// Control, made by hand.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    view: Mutex<View>,
    bus: Mutex<Bus>,
    rung: Notify,
    orders: Mutex<Vec<Order>>,
    reloaded: Mutex<Result<Reloaded, ReloadError>>,
}

/// What the API told control.
#[derive(Clone, Debug)]
pub enum Order {
    Terminate(Box<Terminate>),
    Ban(Ban),
    Drain(Duration),
    Reload,
}

impl Desk {
    /// A ready server with one shard, started a minute ago, that holds at most `events` events.
    pub fn new(events: usize) -> Self {
        let started_at = Instant::now() - Duration::from_secs(60);
        let wall = WallAnchor::at(started_at, Duration::from_secs(START_S));
        let mut view = View::new(wall, started_at, 1);
        view.ready = true;
        view.shards[0].reported_at = Some(Instant::now() + Duration::from_secs(3_600));
        let inner = Inner {
            view: Mutex::new(view),
            bus: Mutex::new(Bus::new(events)),
            rung: Notify::new(),
            orders: Mutex::default(),
            reloaded: Mutex::new(Ok(Reloaded::default())),
        };
        Self(Arc::new(inner))
    }

    pub fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.0.view.lock().unwrap());
    }

    pub fn add(&self, row: SessionRow) {
        self.change(|view| {
            view.sessions.insert(row.facts.id, row);
        });
    }

    /// Moves a session to the finished ones, and books it.
    pub fn finish(&self, id: SessionId, reason: CloseReason) {
        self.change(|view| {
            let mut row = view.sessions.remove(&id).unwrap();
            row.closed = Some((Instant::now(), reason));
            row.state = State::Finished;
            let facts = Arc::clone(&row.facts);
            let collector = view.collectors.get_mut(facts.protocol.collector()).unwrap();
            let of_key = collector.history.entry((facts.kind, facts.key.clone(), facts.remote)).or_default();
            for totals in [of_key, &mut collector.finished] {
                totals.sessions += 1;
                totals.rx_bytes += row.counters.rx_bytes;
                totals.tx_bytes += row.counters.tx_bytes;
            }
            *collector.reasons.entry((facts.kind, reason)).or_default() += 1;
            view.finished.push_back(row);
        });
    }

    pub fn publish(&self, event: Event) {
        self.0.bus.lock().unwrap().publish(event);
        self.0.rung.notify_waiters();
    }

    /// What the next reloads come to.
    pub fn answer_reloads(&self, reloaded: Result<Reloaded, ReloadError>) {
        *self.0.reloaded.lock().unwrap() = reloaded;
    }

    pub fn orders(&self) -> Vec<Order> {
        self.0.orders.lock().unwrap().clone()
    }

    pub fn router(&self, settings: &Settings) -> Router {
        router(self.clone(), None, settings)
    }

    /// The API of a server that has a ledger.
    pub fn router_with(&self, history: History, settings: &Settings) -> Router {
        router(self.clone(), Some(history), settings)
    }

    /// The default API of a server that has a ledger.
    pub fn client_of(&self, history: History) -> Client {
        self.client_at(history, &Settings { rate: 1_000_000, ..Settings::default() })
    }

    pub fn client_at(&self, history: History, settings: &Settings) -> Client {
        Client { router: self.router_with(history, settings), peer: "127.0.0.1:50000".parse().unwrap() }
    }

    /// The default API, fast enough for tests.
    pub fn client(&self) -> Client {
        self.client_with(&Settings { rate: 1_000_000, ..Settings::default() })
    }

    pub fn client_with(&self, settings: &Settings) -> Client {
        Client { router: self.router(settings), peer: "127.0.0.1:50000".parse().unwrap() }
    }
}

impl Backend for Desk {
    fn read(&self, read: &mut dyn FnMut(&View)) {
        read(&self.0.view.lock().unwrap());
    }

    fn terminate(&self, what: Terminate) -> Answer<'_, Result<Terminated, CommandError>> {
        let ids: Vec<SessionId> = self.0.view.lock().unwrap().select(&what.filter).map(|row| row.facts.id).collect();
        let matched = ids.len();
        let closed = if what.dry_run { 0 } else { matched };
        let banned = if what.ban_for.is_some() { closed } else { 0 };
        if !what.dry_run {
            for id in &ids {
                self.finish(*id, what.reason);
            }
        }
        self.0.orders.lock().unwrap().push(Order::Terminate(Box::new(what)));
        Box::pin(std::future::ready(Ok(Terminated { ids, matched, closed, banned })))
    }

    fn ban(&self, ban: Ban) -> Answer<'_, Result<Terminated, CommandError>> {
        self.0.view.lock().unwrap().bans.insert(Instant::now(), ban.clone());
        self.0.orders.lock().unwrap().push(Order::Ban(ban));
        Box::pin(async { Ok(Terminated { banned: 1, ..Terminated::default() }) })
    }

    fn unban(&self, whom: Whom) -> Answer<'_, Result<bool, CommandError>> {
        let lifted = self.0.view.lock().unwrap().bans.remove(&whom);
        Box::pin(async move { Ok(lifted) })
    }

    fn dependencies(&self) -> Dependencies {
        Dependencies::default()
    }

    fn drain(&self, over: Duration) {
        self.0.orders.lock().unwrap().push(Order::Drain(over));
    }

    fn drain_timeout(&self) -> Duration {
        Duration::from_secs(8)
    }

    fn reload(&self) -> Answer<'_, Result<Reloaded, ReloadError>> {
        self.0.orders.lock().unwrap().push(Order::Reload);
        Box::pin(std::future::ready(self.0.reloaded.lock().unwrap().clone()))
    }

    fn subscribe(&self, after: Option<u64>) -> Cursor {
        let newest = self.0.bus.lock().unwrap().subscribe();
        after.map(|number| Cursor::at(number + 1)).filter(|cursor| cursor.next <= newest.next).unwrap_or(newest)
    }

    fn next_event<'a>(&'a self, cursor: &'a mut Cursor) -> Answer<'a, (u64, Recorded)> {
        Box::pin(async move {
            loop {
                let rung = self.0.rung.notified();
                let next = self.0.bus.lock().unwrap().next(cursor);
                if let Some(next) = next {
                    return next;
                }
                rung.await;
            }
        })
    }
}

/// The `n`-th session's id.
pub fn id(n: u64) -> SessionId {
    SessionId::new(START_S * 1_000 + n, [0; 10])
}

pub fn key(vhost: &str, app: &str, stream: &str) -> StreamKey {
    StreamKey::new(&Name::app(vhost).unwrap(), &Name::app(app).unwrap(), &Name::stream(stream).unwrap())
}

pub fn facts(n: u64, kind: Kind, app: &str, stream: &str, remote: &str) -> Facts {
    let opened_at = Instant::now() - Duration::from_secs(30) + Duration::from_millis(n);
    let facts = crate::facts::facts(n, id(n), kind, key("default", app, stream), opened_at, START_S * 1_000 + n);
    Facts { remote: remote.parse().unwrap(), ..facts }
}

/// The `n`-th session, running.
pub fn row(n: u64, kind: Kind, app: &str, stream: &str, remote: &str) -> SessionRow {
    let facts = facts(n, kind, app, stream, remote);
    SessionRow {
        started_at: Some(facts.opened_at),
        facts: Arc::new(facts),
        state: State::Running,
        counters: Counters::default(),
        queue_bytes: 0,
        rates: Rates::default(),
        closed: None,
    }
}

/// Asks a router, as a peer.
#[derive(Clone)]
pub struct Client {
    router: Router,
    pub peer: SocketAddr,
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub headers: axum::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Client {
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let response = self.router.clone().oneshot(self.request(method, path, headers, body)).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// An answer whose body is read bit by bit.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)]) -> axum::response::Response {
        self.router.clone().oneshot(self.request("GET", path, headers, Body::empty())).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_owned()).await
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:8081");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(ConnectInfo(self.peer));
        request
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The field that a problem names, after checking that it is one of this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Option<String> {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let body = self.json();
        assert_eq!(body["status"], status);
        body["field"].as_str().map(str::to_owned)
    }
}
