//! The questions of shards: may this session? The desk decides, asks back ends where it must, and the registry has the
//! last word about who publishes.
//!
//! Knows neither clock nor queue nor socket: what is to be sent is appended to lists, what is to be asked of a back end
//! is taken from [`Questions::take_asks`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::admission::{
    Action, Answer, AskId, Counts, Desk, EgressScope, Gate, Grant, Measured, Note, Refusal, Ticket, Verdict, Why,
};
use crate::control::View;
use crate::control::registry::{OrderIds, Registry};
use crate::names::{SessionId, ShardId, StreamKey};
use crate::session::{CloseReason, Facts, Reason};
use crate::shard::mail::ToShard;
use crate::stdx::clock::WallAnchor;

/// See the module.
pub struct Questions {
    desk: Desk,
    /// Whom each question at the desk is about.
    at_desk: HashMap<u64, SessionId>,
    asked: u64,
    /// Sessions with a question under way, and publishers that go by another name than the one they asked for.
    pending: HashMap<SessionId, Pending>,
    asks: Vec<ToAsk>,
    /// Players that have begun since the last report of their shard, or whose stream nobody has measured yet.
    uncounted: HashMap<ShardId, Vec<SessionId>>,
    /// Token rules whose key set should be read again.
    stale_keys: Vec<usize>,
}

/// What is known of a session between its question and its verdict.
struct Pending {
    from: ShardId,
    ticket: Ticket,
    facts: Arc<Facts>,
    /// Its number at the desk, until that has answered.
    question: Option<u64>,
    /// What the desk granted, until the registry has spoken too.
    granted: Option<Box<Grant>>,
    /// The stream that it was given in place of the one it asked for: its shard says the old name of what it has not
    /// begun.
    renamed: Option<StreamKey>,
}

/// What is to be asked of a back end.
#[derive(Debug)]
pub struct ToAsk {
    /// Quoted with the answer.
    pub id: AskId,
    /// Which back end, in the order of the configuration.
    pub hook: usize,
    /// About whom.
    pub facts: Arc<Facts>,
    /// Why now.
    pub why: Why,
}

/// Where decisions go: the registry, and mail for shards.
pub struct Ways<'a> {
    /// Who publishes what.
    pub registry: &'a mut Registry,
    /// Numbers orders.
    pub orders: &'a mut OrderIds,
    /// Mail for shards.
    pub out: &'a mut Vec<(ShardId, ToShard)>,
}

impl Questions {
    /// With a desk that knows the rules.
    #[must_use]
    pub fn new(desk: Desk) -> Self {
        Self {
            desk,
            at_desk: HashMap::new(),
            asked: 0,
            pending: HashMap::new(),
            asks: Vec::new(),
            uncounted: HashMap::new(),
            stale_keys: Vec::new(),
        }
    }

    /// A shard asks.
    pub fn ask(
        &mut self,
        now: Instant,
        from: ShardId,
        ticket: Ticket,
        facts: Arc<Facts>,
        view: &View,
        ways: &mut Ways<'_>,
    ) {
        self.asked += 1;
        let (question, session) = (self.asked, facts.id);
        self.at_desk.insert(question, session);
        let pending =
            Pending { from, ticket, facts: Arc::clone(&facts), question: Some(question), granted: None, renamed: None };
        self.pending.insert(session, pending);
        self.desk.handle_ask(now, question, facts, &Known { view, registry: ways.registry });
        self.carry_out(now, view, ways);
    }

    /// A back end has answered.
    pub fn answered(&mut self, now: Instant, id: AskId, answer: Answer, view: &View, ways: &mut Ways<'_>) {
        self.desk.handle_answer(now, id, answer, &Known { view, registry: ways.registry });
        self.carry_out(now, view, ways);
    }

    /// A session has ended. Returns the stream that the registry knows it by.
    pub fn closed(&mut self, now: Instant, facts: &Facts, view: &View, ways: &mut Ways<'_>) -> StreamKey {
        let pending = self.pending.remove(&facts.id);
        if let Some(question) = pending.as_ref().and_then(|pending| pending.question) {
            self.at_desk.remove(&question);
        }
        self.desk.handle_closed(now, facts.id, &Known { view, registry: ways.registry });
        self.carry_out(now, view, ways);
        pending.and_then(|pending| pending.renamed).unwrap_or_else(|| facts.key.clone())
    }

    /// What the registry calls the stream that a session asked to publish as `asked`.
    #[must_use]
    pub fn key_of(&self, session: SessionId, asked: &StreamKey) -> StreamKey {
        let renamed = self.pending.get(&session).and_then(|pending| pending.renamed.as_ref());
        renamed.unwrap_or(asked).clone()
    }

    /// What a publisher has sent since its beginning, in bytes.
    pub fn received(&mut self, now: Instant, session: SessionId, rx_bytes: u64) {
        self.desk.handle_received(now, session, rx_bytes);
    }

    /// A session has begun on its shard, whose next report has it.
    pub fn begun(&mut self, facts: &Facts) {
        if self.desk.is_unmeasured(facts.id) {
            self.uncounted.entry(facts.shard).or_default().push(facts.id);
        }
    }

    /// A shard has reported, and the view has what it said. True when players are in the measured rates that were not.
    pub fn reported(&mut self, from: ShardId, view: &View, registry: &Registry) -> bool {
        let Some(uncounted) = self.uncounted.get_mut(&from) else { return false };
        let before = uncounted.len();
        uncounted.retain(|session| !self.desk.handle_counted(*session, &Known { view, registry }));
        uncounted.len() < before
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Instant, view: &View, ways: &mut Ways<'_>) {
        self.desk.handle_timeout(now, &Known { view, registry: ways.registry });
        self.carry_out(now, view, ways);
    }

    /// When [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.desk.next_due()
    }

    /// The registry has spoken about a publisher: the verdict that its shard is to be told, if it still waits for one.
    pub fn settled(&mut self, session: SessionId, verdict: Result<(), CloseReason>) -> Option<Verdict> {
        let pending = self.pending.get_mut(&session)?;
        let granted = pending.granted.take()?;
        if pending.renamed.is_none() || verdict.is_err() {
            self.pending.remove(&session);
        }
        Some(match verdict {
            Ok(()) => Ok(granted),
            Err(reason) => Err(Box::new(granted.refused(reason))),
        })
    }

    /// Obeys other rules; see [`Desk::configure`].
    pub fn configure(&mut self, settings: &crate::admission::Settings, gate: Arc<Gate>) {
        // What cannot be obeyed was refused before it came here.
        if let Err(error) = self.desk.configure(settings, gate) {
            tracing::error!(ev = "reload", "{error}; the rules of admission stay as they were");
        }
    }

    /// The wall clock moved; see [`Desk::handle_clock`].
    pub fn clock(&mut self, now: Instant, wall: WallAnchor) {
        self.desk.handle_clock(now, wall);
    }

    /// Reads a key set for a token rule, see [`Desk::set_jwks`], and judges those who waited for it.
    ///
    /// # Errors
    /// When the rule does not read `from` there, or the text is no key set.
    pub fn set_jwks(
        &mut self,
        now: Instant,
        (rule, from, text): (usize, &str, &str),
        view: &View,
        ways: &mut Ways<'_>,
    ) -> Result<usize, &'static str> {
        let keys = self.desk.set_jwks(rule, from, text)?;
        self.desk.handle_keys(now, rule, &Known { view, registry: ways.registry });
        self.carry_out(now, view, ways);
        Ok(keys)
    }

    /// What back ends are to be asked.
    pub fn take_asks(&mut self) -> Vec<ToAsk> {
        std::mem::take(&mut self.asks)
    }

    /// Token rules whose key set should be read again.
    pub fn take_stale_keys(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.stale_keys)
    }

    /// What has been decided so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.desk.counts()
    }

    fn carry_out(&mut self, now: Instant, view: &View, ways: &mut Ways<'_>) {
        while let Some(action) = self.desk.poll() {
            match action {
                Action::Verdict { question, verdict } => self.verdict(now, question, verdict, ways),
                Action::Ask { id, hook, facts, why } => self.asks.push(ToAsk { id, hook, facts, why }),
                Action::End { session, reason, text } => {
                    // A session that is not in the view has just ended by itself.
                    if let Some(row) = view.sessions.get(&session) {
                        let order = ways.orders.take();
                        let close = ToShard::Close { order, sessions: vec![session], reason, text };
                        ways.out.push((row.facts.shard, close));
                    }
                }
                Action::Note { facts, note } => self.note(&facts, &note),
            }
        }
    }

    fn verdict(&mut self, now: Instant, question: u64, verdict: Verdict, ways: &mut Ways<'_>) {
        let Some(session) = self.at_desk.remove(&question) else { return };
        let Some(pending) = self.pending.get_mut(&session) else { return };
        pending.question = None;
        let (from, ticket) = (pending.from, pending.ticket);
        match verdict {
            Ok(grant) if pending.facts.kind.is_source() => {
                let facts = Arc::new(pending.facts.identified(grant.identity()));
                pending.renamed = (facts.key != pending.facts.key).then(|| facts.key.clone());
                pending.granted = Some(grant);
                ways.registry.ask_publish(now, from, ticket, facts, ways.orders);
            }
            verdict => {
                self.pending.remove(&session);
                ways.out.push((from, ToShard::Verdict { ticket, verdict }));
            }
        }
    }

    fn note(&mut self, facts: &Facts, note: &Note) {
        let sid = facts.id;
        match *note {
            // The refusal itself is an event; the source's throttle is the shards' business.
            Note::AuthFailed(_) => {}
            Note::BitrateHigh { bps, max } => {
                tracing::warn!(%sid, stream = %facts.key, bps, max, "bitrate_high");
            }
            Note::RedirectRefused => tracing::warn!(%sid, stream = %facts.key, "redirect_refused"),
            Note::KeyUnknown { rule } => self.stale_keys.push(rule),
        }
    }
}

/// The refusal of a newcomer while the server is going away.
#[must_use]
pub fn draining() -> Box<Refusal> {
    Box::new(Refusal::from(CloseReason::from(Reason::Drain)))
}

/// What the desk may want to know.
struct Known<'a> {
    view: &'a View,
    registry: &'a Registry,
}

impl Measured for Known<'_> {
    fn stream_bps(&self, key: &StreamKey) -> u64 {
        self.view.stream_bps(key)
    }

    fn egress_bps(&self, scope: EgressScope<'_>) -> u64 {
        match scope {
            EgressScope::Stream(key) => self.view.egress_bps_of(key),
            EgressScope::App(vhost, app) => self.view.egress_bps_over(Some((vhost, app))),
            EgressScope::Server => self.view.egress_bps_over(None),
        }
    }

    fn refuses_publisher(&self, facts: &Facts) -> bool {
        self.registry.refuses(facts)
    }
}
