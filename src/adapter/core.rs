//! What the adapters of one shard share: the sessions, the streams, the rules, and the way out to control.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::adapter::{Guard, Settings, Streams};
use crate::admission::{Decision, Gate, Policy, Request, Ticket};
use crate::event::{Attempt, Event, Wanted};
use crate::names::{Kind, Protocol, SessionId, ShardId, StreamKey};
use crate::proto::rtmp::GlitchCounts;
use crate::session::{CloseReason, Facts, Identity, SessionKey, Table};
use crate::stdx::clock::WallAnchor;
use crate::stdx::ids::SplitMix;
use crate::stream::Subscriber;

/// What adapters tell control; the shard puts it in the mail.
#[derive(Debug)]
pub enum Outgoing {
    /// Something happened.
    Event(Event),
    /// May this session do what it asks for?
    Ask {
        /// Quoted in the answer.
        ticket: Ticket,
        /// Who asks.
        facts: Arc<Facts>,
    },
    /// A session that asked to publish, or did, no longer does.
    PublisherLeft {
        /// The stream.
        key: StreamKey,
        /// The session.
        session: SessionId,
    },
    /// Somebody here watches.
    Subscribe(StreamKey),
    /// Nobody here watches any more.
    Unsubscribe(StreamKey),
}

/// See the module.
pub struct Core {
    /// Which shard this is.
    pub shard: ShardId,
    /// The rules of sessions.
    pub settings: Settings,
    /// The rules of RTMP.
    pub rtmp: Arc<crate::proto::rtmp::Settings>,
    /// Labels for instants.
    pub wall: WallAnchor,
    /// Who is here.
    pub sessions: Table,
    /// What flows.
    pub streams: Streams,
    /// May they.
    pub policy: Policy,
    /// What stands before that question.
    pub guard: Guard,
    /// Requests refused by a ban.
    pub ban_hits: u64,
    /// Frames that slow players did not get.
    pub dropped_frames: u64,
    /// Glitches seen, by what they were.
    pub glitches: GlitchCounts,
    /// No new sessions.
    pub draining: bool,
    outbox: VecDeque<Outgoing>,
    urgent: bool,
    owners: HashMap<SessionId, Subscriber>,
    tickets: HashMap<Ticket, Subscriber>,
    next_ticket: u64,
    ids: SplitMix,
}

impl Core {
    /// A shard with nothing on it. `seed` makes session ids; it need not be secret, only different on every shard
    /// and start.
    #[must_use]
    pub fn new(
        shard: ShardId,
        settings: Settings,
        rtmp: Arc<crate::proto::rtmp::Settings>,
        streams: crate::stream::Settings,
        policy: Policy,
        wall: WallAnchor,
        seed: u64,
    ) -> Self {
        Self {
            shard,
            guard: Guard::new(settings.clone(), Arc::clone(&rtmp)),
            settings,
            rtmp,
            wall,
            sessions: Table::default(),
            streams: Streams::new(streams),
            policy,
            ban_hits: 0,
            dropped_frames: 0,
            glitches: GlitchCounts::default(),
            draining: false,
            outbox: VecDeque::new(),
            urgent: false,
            owners: HashMap::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            ids: SplitMix::new(seed),
        }
    }

    /// A fresh session id.
    pub fn new_id(&mut self, now: Instant) -> SessionId {
        SessionId::new(self.wall.unix_ms(now), self.ids.ten_bytes())
    }

    /// What the rules of this shard say, bans first. Counts what a ban refused.
    pub fn decide(&mut self, now: Instant, request: &Request) -> Decision {
        if self.draining {
            return Decision::Deny(crate::session::Reason::Drain.into());
        }
        let decision = self.policy.decide(now, request);
        if decision == Decision::Deny(crate::session::Reason::Banned.into()) {
            self.ban_hits = self.ban_hits.saturating_add(1);
            return decision;
        }
        if let Some(reason) = self.guard.refusal(now, request) {
            return Decision::Deny(reason);
        }
        if let Decision::Deny(reason) = decision {
            self.guard.note_refusal(now, request.remote, reason);
        }
        decision
    }

    /// True when a session may not begin under either of its names, the one that it asked for and the one that it was
    /// given: a ban may have come while the question was open. Counts what a ban refused.
    pub fn is_banned_by_now(&mut self, now: Instant, facts: &Facts, granted: &StreamKey) -> bool {
        let asked = Request::of(facts);
        let is_banned = self.policy.bans.is_banned(now, &asked)
            || (asked.key != *granted
                && self.policy.bans.is_banned(now, &Request { key: granted.clone(), ..asked.clone() }));
        self.ban_hits = self.ban_hits.saturating_add(u64::from(is_banned));
        is_banned
    }

    /// Puts new rules of admission in force, and tells which running sessions these turn away and the old ones did
    /// not, each with the reason to be given. A session that something else than these rules let in is left to that.
    pub fn change_gate(&mut self, gate: Arc<Gate>) -> Vec<(SessionId, CloseReason)> {
        let old = std::mem::replace(&mut self.policy.gate, gate);
        let turned_away = self.sessions.iter().filter_map(|(_, facts)| {
            let reason = self.policy.turned_away_since(&old, &Request::of(facts))?;
            Some((facts.id, reason))
        });
        turned_away.collect()
    }

    /// Opens a session for the connection `owner`.
    pub fn open(&mut self, now: Instant, facts: Facts, owner: Subscriber) -> SessionKey {
        self.owners.insert(facts.id, owner);
        let key = self.sessions.open(now, facts);
        self.collect();
        key
    }

    /// The verdict on a session was yes: it is from now on what the verdict says.
    pub fn authorize(&mut self, now: Instant, key: SessionKey, identity: Identity) {
        self.sessions.authorize(now, key, identity);
        self.collect();
    }

    /// Moves a session along its life.
    pub fn record(&mut self, now: Instant, key: SessionKey, what: crate::session::What) {
        self.note_failure(now, key, &what);
        self.sessions.record(now, key, what);
        self.collect();
    }

    /// Closes a session; its events are on their way to control when this returns.
    pub fn close(&mut self, now: Instant, key: SessionKey, reason: CloseReason) {
        if let Some(facts) = self.sessions.facts(key) {
            self.owners.remove(&facts.id);
        }
        self.sessions.close(now, key, reason);
        self.collect();
    }

    /// The connection that a session lives on.
    #[must_use]
    pub fn owner(&self, id: SessionId) -> Option<Subscriber> {
        self.owners.get(&id).copied()
    }

    /// Asks control whether a session may do what it asks for. The answer comes to `owner` under the ticket.
    pub fn ask(&mut self, facts: Arc<Facts>, owner: Subscriber) -> Ticket {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, owner);
        self.post_urgent(Outgoing::Ask { ticket, facts });
        ticket
    }

    /// Who waits for an answer; forgets the question.
    pub fn take_ticket(&mut self, ticket: Ticket) -> Option<Subscriber> {
        self.tickets.remove(&ticket)
    }

    /// Records a connection or request that never became a session.
    pub fn attempt(&mut self, now: Instant, kind: Option<Kind>, remote: SocketAddr, reason: CloseReason) {
        self.attempt_at(now, kind, remote, reason, Wanted::default());
    }

    /// The same of one that said where it went.
    pub fn attempt_at(
        &mut self,
        at: Instant,
        kind: Option<Kind>,
        remote: SocketAddr,
        reason: CloseReason,
        wanted: Wanted,
    ) {
        let attempt = Attempt { protocol: Protocol::Rtmp, kind, remote, at, reason, wanted };
        self.outbox.push_back(Outgoing::Event(Event::Attempt(attempt)));
    }

    /// Puts something in the mail that somebody waits for.
    pub fn post_urgent(&mut self, out: Outgoing) {
        self.outbox.push_back(out);
        self.urgent = true;
    }

    /// The next thing for control.
    pub fn poll_outgoing(&mut self) -> Option<Outgoing> {
        self.outbox.pop_front()
    }

    /// Says that what is in the mail is waited for.
    pub fn mark_urgent(&mut self) {
        self.urgent = true;
    }

    /// True once when something urgent was posted since the last call.
    pub fn take_urgent(&mut self) -> bool {
        std::mem::take(&mut self.urgent)
    }

    fn collect(&mut self) {
        while let Some(change) = self.sessions.poll_change() {
            self.outbox.push_back(Outgoing::Event(Event::Session(change)));
        }
    }
}
