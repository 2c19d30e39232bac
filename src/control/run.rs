//! The control task: takes the shards' mail, has the parts decide, carries out what they say.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use crate::admission::load::Usage;
use crate::admission::settings::DuplicatePublish;
use crate::admission::{Answer, AskId, Ban, Bans, Desk, Failure};
use crate::control::endings::Endings;
use crate::control::journal::Journal;
use crate::control::load::{LoadDesk, Measure};
use crate::control::mailbox::Outbox;
use crate::control::model::Model;
use crate::control::questions::{self, Questions, ToAsk, Ways};
use crate::control::registry::{Action, OrderIds, Registry};
use crate::control::reloads::Reloads;
use crate::control::{COMMANDS_MAX, Command, Ending, Handle, Mailbox, Settings, Shared, View};
use crate::event::{Bus, Event, ServerEvent, ServerWhat, Sink};
use crate::hook::{Asks, Endpoint, Question};
use crate::ledger::{self, Health, Ledger, StoredBan};
use crate::names::ShardId;
use crate::session::{CloseReason, Reason, What};
use crate::shard::mail::{ToControl, ToShard};
use crate::stdx::clock::WallAnchor;
use crate::stream::{Settings as StreamSettings, relay};

/// What control is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Labels for instants.
    pub wall: WallAnchor,
    /// Now.
    pub started_at: Instant,
    /// How many shards.
    pub shards: usize,
    /// The room's own settings.
    pub control: Settings,
    /// For relays, and for how long a stream outlives its publisher.
    pub stream: StreamSettings,
    /// What a second publisher of a busy stream meets.
    pub duplicate_publish: DuplicatePublish,
}

/// What control works with besides the shards.
pub struct Outside {
    /// The rules that the desk obeys.
    pub admission: Arc<crate::admission::Settings>,
    /// Decides who may.
    pub desk: Desk,
    /// The back ends that the desk's hooks stand for.
    pub asks: Option<Asks>,
    /// The durable record, and how often the counters of running sessions go there.
    pub ledger: Option<(Ledger, Duration)>,
    /// Who is told, by way of the ledger.
    pub sinks: Vec<Sink>,
    /// The receivers behind the sinks, for what is known of them.
    pub endpoints: Vec<Endpoint>,
    /// Who must not come back yet, from an earlier life; the shards know them already.
    pub bans: Bans,
    /// What earlier lives finished.
    pub earlier: ledger::Earlier,
}

#[cfg(test)]
impl Outside {
    /// A desk that says yes, no ledger, nobody to ask or tell.
    #[must_use]
    pub fn alone() -> Self {
        use crate::admission::{Access, Gate};
        let settings = crate::admission::Settings { publish: Access::Open, ..crate::admission::Settings::default() };
        let gate = Arc::new(Gate::new(&settings, &[]));
        let desk = Desk::new(&settings, Vec::new(), gate, WallAnchor::now()).expect("the defaults can be obeyed");
        Self {
            admission: Arc::new(settings),
            desk,
            asks: None,
            ledger: None,
            sinks: Vec::new(),
            endpoints: Vec::new(),
            bans: Bans::default(),
            earlier: ledger::Earlier::default(),
        }
    }
}

/// The task behind the handles; [`run`](Self::run) it on control's runtime.
#[allow(clippy::struct_excessive_bools, reason = "each is about something of its own")]
pub struct Control {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    ending: watch::Receiver<Ending>,
    stream: StreamSettings,
    registry: Registry,
    questions: Questions,
    /// The back ends that are asked, and where their answers come in.
    asks: Option<Asks>,
    answers_in: mpsc::UnboundedSender<(AskId, Answer)>,
    answers: mpsc::UnboundedReceiver<(AskId, Answer)>,
    journal: Journal,
    endings: Endings,
    reloads: Reloads,
    orders: OrderIds,
    model: Model,
    load: LoadDesk,
    /// Where the wall clock should be.
    wall: WallAnchor,
    /// Records reach the disk.
    is_recorded: bool,
    /// What of earlier lives is in the sums.
    carried: Arc<ledger::Earlier>,
    /// Newcomers are refused, because nothing can be recorded of them.
    refuses_unrecorded: bool,
    /// Events happened in this turn.
    happened: bool,
    /// When the server must be down, once it is being stopped, and what happens then.
    last_call: Option<(Instant, LastCall)>,
    /// Mail for shards, from parts that know no queue.
    out: Vec<(ShardId, ToShard)>,
    stop_after: Duration,
    leave_after: Duration,
    /// Mail that was dropped is noted once for each stretch of it.
    dropped_noted: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LastCall {
    /// The drain's time is up: close what is left.
    Stop,
    /// Shards that are not down by now never will be.
    Leave,
}

/// The questions of a control, beside what they may change: its other fields stay free.
macro_rules! split {
    ($control:ident) => {
        (
            &mut $control.questions,
            Ways { registry: &mut $control.registry, orders: &mut $control.orders, out: &mut $control.out },
        )
    };
}

/// How far the wall clock may run from the other before it has been set: an hour's drift is a few milliseconds.
const CLOCK_STEP_MS: u64 = 1_000;
/// Mail handled in one turn before other tasks (the API) may run.
const MAIL_BUDGET: usize = 1_024;
/// Silent sessions looked after in one turn.
const SWEEP_BUDGET: usize = 4_096;
/// How often silent sessions are looked after.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// A shard that has not reported for so long is woken. The runtime (glommio 0.9) forgets its runnable tasks when the
/// timer that is to interrupt them fires before the first of them has run: it goes to sleep, and an idle shard then
/// sleeps until somebody speaks to it.
const NUDGE_AFTER: Duration = Duration::from_millis(500);
/// How soon a full queue is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(10);
/// How long after a drain's deadline shards that are not down are told to stop.
const STOP_AFTER: Duration = Duration::from_secs(1);
/// How long after that control leaves without them. A shard gives its last peers two seconds.
const LEAVE_AFTER: Duration = Duration::from_secs(3);

/// Makes the task and the first handle to it.
#[must_use]
pub fn start(setup: &Setup, outside: Outside) -> (Handle, Control) {
    let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
    let (ending_in, ending) = watch::channel(Ending::No);
    // At most as many answers come as questions are open, and the desk bounds those.
    let (answers_in, answers) = mpsc::unbounded_channel();
    let settings = &setup.control;
    let mut view = View::new(setup.wall, setup.started_at, setup.shards);
    view.bans = outside.bans;
    let carried = Arc::new(outside.earlier);
    view.carry_over(&ledger::Earlier::default(), &carried);
    let shared = Arc::new(Shared {
        view: Mutex::new(view),
        bus: Mutex::new(Bus::new(settings.events_kept)),
        admission: watch::Sender::new(outside.admission),
        stale_keys: (Mutex::default(), Notify::new()),
        asks: outside.asks.clone(),
        endpoints: outside.endpoints,
        ledger: outside.ledger.as_ref().map(|(ledger, _)| ledger.clone()),
        happened: Notify::new(),
        recorded: Notify::new(),
        ending: ending_in,
    });
    let control = Control {
        shared: shared.clone(),
        commands,
        ending,
        stream: setup.stream.clone(),
        registry: Registry::new(setup.duplicate_publish, setup.stream.resume_window, settings.order_timeout),
        questions: Questions::new(outside.desk),
        asks: outside.asks,
        answers_in,
        answers,
        journal: Journal::new(setup.wall, setup.started_at, outside.ledger, outside.sinks),
        endings: Endings::new(settings.order_timeout),
        reloads: Reloads::new(settings.order_timeout),
        orders: OrderIds::default(),
        model: Model::new(settings, setup.started_at, setup.shards),
        load: LoadDesk::new(setup.started_at, Box::new(|_| Usage::default())),
        wall: setup.wall,
        is_recorded: true,
        carried,
        refuses_unrecorded: false,
        happened: false,
        last_call: None,
        out: Vec::new(),
        stop_after: STOP_AFTER,
        leave_after: LEAVE_AFTER,
        dropped_noted: 0,
    };
    (Handle { shared, commands: commands_in }, control)
}

impl Control {
    /// Watches the load of the machine by what `measure` says. Without it nothing presses the server.
    #[must_use]
    pub fn watching(mut self, now: Instant, measure: Measure) -> Self {
        self.load = LoadDesk::new(now, measure);
        self
    }

    /// Runs until every shard has stopped, which a drain or a stop brings about. Handles then answer
    /// [`Stopping`](crate::control::CommandError::Stopping).
    pub async fn run<M: Mailbox>(mut self, mut mailbox: M) {
        let mut outbox = Outbox::new(mailbox.shards());
        let mut sweep_at = now() + SWEEP_EVERY;
        loop {
            let now = now();
            outbox.flush(&mut mailbox);
            let mut more = self.take_mail(now, &mut mailbox, &mut outbox);
            self.take_answers(now, &mut outbox, &mut mailbox);
            self.take_commands(now, &mut outbox, &mut mailbox);
            self.expire(now, &mut outbox, &mut mailbox);
            self.watch_load(now, &mut outbox, &mut mailbox);
            self.end(now, &mut outbox, &mut mailbox);
            let mut is_urgent = false;
            if sweep_at <= now {
                let mut view = self.shared.view();
                more |= self.model.sweep(&mut view, now, SWEEP_BUDGET);
                view.bans.expire(now);
                view.forget_sums();
                view.decisions.clone_from(self.questions.counts());
                self.journal.checkpoint(now, &view);
                for shard in outbox.running() {
                    let heard_at = view.shards.get(shard.index()).and_then(|row| row.reported_at);
                    if now.saturating_duration_since(heard_at.unwrap_or(view.started_at)) > NUDGE_AFTER {
                        mailbox.nudge(shard);
                    }
                }
                drop(view);
                is_urgent = self.watch_record(now, &mut outbox, &mut mailbox);
                self.watch_clock(now);
                sweep_at = now + SWEEP_EVERY;
            }
            self.put_asks(now);
            self.note_stale_keys();
            let told = self.journal.release(&mut self.shared.bus());
            let happened = std::mem::take(&mut self.happened);
            if happened {
                self.shared.happened.notify_waiters();
            }
            if told || is_urgent || (happened && !self.journal.has_record()) {
                self.shared.recorded.notify_waiters();
            }
            self.note_dropped(&outbox);
            if self.is_over(now, &outbox) {
                self.end_streams(now, &mut outbox, &mut mailbox);
                return;
            }

            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let mut wake_at = sweep_at.min(self.load.next_due());
            if outbox.is_waiting() {
                wake_at = wake_at.min(now + RETRY_EVERY);
            }
            let dues = [
                self.registry.next_due(),
                self.endings.next_due(),
                self.questions.next_due(),
                self.reloads.next_due(),
                self.last_call.map(|(at, _)| at),
            ];
            for due in dues.into_iter().flatten() {
                wake_at = wake_at.min(due);
            }
            tokio::select! {
                () = mailbox.wait() => {}
                // Nothing can be lost here: the command is handled before anything else is awaited.
                Some(command) = self.commands.recv() => self.command(self::now(), command, &mut outbox, &mut mailbox),
                Some((id, answer)) = self.answers.recv() => {
                    self.answer(self::now(), id, answer, &mut outbox, &mut mailbox);
                }
                () = self.journal.committed() => {}
                Ok(()) = self.ending.changed() => {}
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
    }

    /// Handles the mail that is there, up to the turn's budget. Returns true when there may be more.
    fn take_mail<M: Mailbox>(&mut self, now: Instant, mailbox: &mut M, outbox: &mut Outbox) -> bool {
        for _ in 0..MAIL_BUDGET {
            let Some((from, mail)) = mailbox.poll() else { return false };
            self.mail(now, from, mail, outbox);
            self.carry_out(outbox, mailbox);
        }
        true
    }

    fn mail(&mut self, now: Instant, from: ShardId, mail: ToControl, outbox: &mut Outbox) {
        match mail {
            ToControl::Event(event) => self.event(now, event),
            ToControl::Ask { ticket, facts } => {
                #[cfg(feature = "faults")]
                fault(&facts.key);
                let view = self.shared.view();
                if view.draining {
                    self.out.push((from, ToShard::Verdict { ticket, verdict: Err(questions::draining()) }));
                } else {
                    let (questions, mut ways) = split!(self);
                    questions.ask(now, from, ticket, facts, &view, &mut ways);
                }
            }
            ToControl::PublisherLeft { key, session } => {
                let key = self.questions.key_of(session, &key);
                self.registry.publisher_left(now, &key, session);
            }
            ToControl::Subscribe(key) => {
                self.registry.subscribe(from, &key);
                self.model.wanted(&mut self.shared.view(), &key);
            }
            ToControl::Unsubscribe(key) => {
                self.registry.unsubscribe(from, &key);
                let known = self.registry.knows(&key);
                self.model.forget_if_over(&mut self.shared.view(), &key, known);
            }
            ToControl::Report(report) => {
                let (home, known) = (|key: &_| self.registry.home(key), |key: &_| self.registry.knows(key));
                let (journal, questions) = (&mut self.journal, &mut self.questions);
                self.model.report(&mut self.shared.view(), &report, home, known, |row| {
                    journal.moved(row.facts.id);
                    if row.facts.kind.is_source() {
                        questions.received(now, row.facts.id, row.counters.rx_bytes);
                    }
                });
                let mut view = self.shared.view();
                if self.questions.reported(from, &view, &self.registry) {
                    // What is expected no more must be in the sums at once.
                    view.forget_sums();
                }
            }
            ToControl::Done { order, count } => {
                if !self.registry.done(now, order) && !self.reloads.done(order, count) {
                    let view = self.shared.view();
                    self.endings.done(now, order, count, &view, &mut self.orders, &mut self.out);
                }
            }
            ToControl::Stopped => outbox.stop(from),
        }
    }

    fn event(&mut self, now: Instant, event: Event) {
        match &event {
            Event::Session(change) => {
                self.model.session(&mut self.shared.view(), change);
                if change.what == What::Authorized {
                    self.questions.begun(&change.facts);
                }
                if matches!(change.what, What::Closed(..)) {
                    let view = self.shared.view();
                    let (questions, mut ways) = split!(self);
                    let key = questions.closed(now, &change.facts, &view, &mut ways);
                    // A source that closed while its question was open has no other way to say so.
                    self.registry.publisher_left(now, &key, change.facts.id);
                }
            }
            Event::Attempt(attempt) => self.model.attempt(&mut self.shared.view(), attempt),
            Event::Stream(stream) => {
                let known = self.registry.knows(&stream.key);
                self.model.stream(&mut self.shared.view(), stream, known);
            }
            Event::Server(_) => {}
        }
        self.journal.publish(&mut self.shared.bus(), event);
        self.happened = true;
    }

    fn take_answers<M: Mailbox>(&mut self, now: Instant, outbox: &mut Outbox, mailbox: &mut M) {
        while let Ok((id, answer)) = self.answers.try_recv() {
            self.answer(now, id, answer, outbox, mailbox);
        }
    }

    fn answer<M: Mailbox>(&mut self, now: Instant, id: AskId, answer: Answer, outbox: &mut Outbox, mailbox: &mut M) {
        {
            let view = self.shared.view();
            let (questions, mut ways) = split!(self);
            questions.answered(now, id, answer, &view, &mut ways);
        }
        self.carry_out(outbox, mailbox);
    }

    /// Puts questions to back ends, each in a task of its own; the desk bounds how many there are.
    fn put_asks(&mut self, now: Instant) {
        for ask in self.questions.take_asks() {
            let ToAsk { id, hook, facts, why } = ask;
            let answers = self.answers_in.clone();
            let Some(asks) = self.asks.clone() else {
                let _ = answers.send((id, Answer::Failure(Failure::Connect)));
                continue;
            };
            let view = self.shared.view();
            let counters = view.sessions.get(&facts.id).map(|row| row.counters);
            let question = Question { facts, counters, why, unix_ms: view.wall.unix_ms(now) };
            drop(view);
            tokio::spawn(async move {
                let answer = asks.ask(hook, &question).await;
                let _ = answers.send((id, answer));
            });
        }
    }

    fn note_stale_keys(&mut self) {
        let stale = self.questions.take_stale_keys();
        if !stale.is_empty() {
            let (rules, rung) = &self.shared.stale_keys;
            rules.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(stale);
            rung.notify_waiters();
        }
    }

    fn take_commands<M: Mailbox>(&mut self, now: Instant, outbox: &mut Outbox, mailbox: &mut M) {
        while let Ok(command) = self.commands.try_recv() {
            self.command(now, command, outbox, mailbox);
        }
    }

    fn command<M: Mailbox>(&mut self, now: Instant, command: Command, outbox: &mut Outbox, mailbox: &mut M) {
        match command {
            Command::Terminate { what, reply } => {
                let shards: Vec<_> = outbox.running().collect();
                let view = self.shared.view();
                self.endings.begin(now, &view, &shards, *what, reply, &mut self.orders, &mut self.out);
            }
            Command::Ban { ban, reply } => {
                let shards: Vec<_> = outbox.running().collect();
                let view = self.shared.view();
                self.endings.ban(now, &view, &shards, ban, reply, &mut self.orders, &mut self.out);
            }
            Command::KeySet { rule, from, text, reply } => {
                let view = self.shared.view();
                let (questions, mut ways) = split!(self);
                let _ = reply.send(questions.set_jwks(now, (rule, &from, &text), &view, &mut ways));
            }
            Command::Ready { at } => self.event(at, Event::Server(ServerEvent { at, what: ServerWhat::Ready })),
            Command::Configure { rules, reply } => {
                self.stream = rules.streams.clone();
                self.questions.configure(&rules.admission, Arc::clone(&rules.gate));
                self.shared.admission.send_replace(Arc::new(rules.admission.clone()));
                self.registry.configure(rules.admission.duplicate_publish, rules.streams.resume_window);
                let shards: Vec<_> = outbox.running().collect();
                let generation = self.shared.view().reload_applied();
                self.reloads.begin(now, generation, &shards, &rules, reply, &mut self.orders, &mut self.out);
            }
            Command::ReloadRefused => self.shared.view().reloads_refused += 1,
            Command::Unban { whom, reply } => {
                for shard in outbox.running() {
                    self.out.push((shard, ToShard::Unban(whom.clone())));
                }
                if let Some(ledger) = self.journal.ledger() {
                    ledger.unban(&whom);
                }
                let _ = reply.send(self.shared.view().bans.remove(&whom));
            }
        }
        for ban in self.endings.take_made() {
            self.keep_ban(now, ban);
        }
        self.carry_out(outbox, mailbox);
    }

    fn keep_ban(&mut self, now: Instant, ban: Ban) {
        let mut view = self.shared.view();
        if let Some(ledger) = self.journal.ledger() {
            // The next start reads it by the clock of then, which is the one of now and not that of this start.
            ledger.ban(StoredBan { whom: ban.whom.clone(), until_unix_ms: self.wall.unix_ms(ban.until) });
        }
        view.bans.insert(now, ban);
    }

    fn expire<M: Mailbox>(&mut self, now: Instant, outbox: &mut Outbox, mailbox: &mut M) {
        self.registry.expire(now);
        self.reloads.expire(now);
        {
            let view = self.shared.view();
            let (questions, mut ways) = split!(self);
            questions.expire(now, &view, &mut ways);
            self.endings.expire(now, &view, &mut self.orders, &mut self.out);
        }
        self.carry_out(outbox, mailbox);
    }

    /// Looks at the ledger: says when records begin to wait for the disk, and when they no longer do. True then: that is
    /// told before it is on record.
    fn watch_record<M: Mailbox>(&mut self, now: Instant, outbox: &mut Outbox, mailbox: &mut M) -> bool {
        let Some(status) = self.journal.ledger().map(Ledger::status) else { return false };
        if std::mem::replace(&mut self.refuses_unrecorded, status.refuse_new) != status.refuse_new {
            // Shards refuse by themselves: a newcomer whose question came here would be a session already.
            let shards: Vec<_> = outbox.running().collect();
            for shard in shards {
                outbox.send(mailbox, shard, ToShard::Recorded(!status.refuse_new));
            }
        }
        // The ledger may still be at work on what a crash left open.
        if let Some(earlier) = status.earlier
            && !Arc::ptr_eq(&earlier, &self.carried)
        {
            self.shared.view().carry_over(&self.carried, &earlier);
            self.carried = earlier;
        }
        let is_ok = status.health == Health::Ok;
        if std::mem::replace(&mut self.is_recorded, is_ok) != is_ok {
            if let Some(trouble) = &status.trouble {
                tracing::error!(ev = "ledger", "{trouble}");
            }
            self.event(now, Event::Server(ServerEvent { at: now, what: ServerWhat::Ledger(is_ok) }));
            return true;
        }
        false
    }

    /// Compares the wall clock with where it should be by now. Labels keep to the start's clock, so that the order of
    /// what is recorded stays; what expires follows the clock as it was set.
    fn watch_clock(&mut self, now: Instant) {
        let wall = WallAnchor::now();
        let is = i128::from(wall.unix_ms(now));
        let by_ms = i64::try_from(is - i128::from(self.wall.unix_ms(now))).unwrap_or(i64::MAX);
        if by_ms.unsigned_abs() >= CLOCK_STEP_MS {
            self.wall = wall;
            self.questions.clock(now, wall);
            self.event(now, Event::Server(ServerEvent { at: now, what: ServerWhat::ClockStep { by_ms } }));
        }
    }

    /// Looks at the load: tells the shards, lets viewers go where it must.
    fn watch_load<M: Mailbox>(&mut self, now: Instant, outbox: &mut Outbox, mailbox: &mut M) {
        let step = {
            let mut view = self.shared.view();
            for took in self.endings.take_times() {
                view.times.kick.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
            let step = self.load.step(now, &mut view);
            let shard_of = |id: &_| view.sessions.get(id).map(|row| row.facts.shard);
            for id in &step.shed {
                let Some(shard) = shard_of(id) else { continue };
                let (order, reason) = (self.orders.take(), CloseReason::with(Reason::Overload, "shed"));
                self.out.push((shard, ToShard::Close { order, sessions: vec![*id], reason, text: None }));
            }
            step
        };
        if let Some(load) = step.told {
            self.out.extend(outbox.running().map(|shard| (shard, ToShard::Load(load))));
        }
        if let Some(state) = step.entered {
            self.event(now, Event::Server(ServerEvent { at: now, what: ServerWhat::Load(state) }));
        }
        self.carry_out(outbox, mailbox);
    }

    /// Sends what the parts decided.
    fn carry_out<M: Mailbox>(&mut self, outbox: &mut Outbox, mailbox: &mut M) {
        while let Some(action) = self.registry.poll() {
            match action {
                Action::Verdict { to, ticket, session, verdict } => {
                    if let Some(verdict) = self.questions.settled(session, verdict) {
                        outbox.send(mailbox, to, ToShard::Verdict { ticket, verdict });
                    }
                }
                Action::Close { to, order, session } => {
                    let reason = Reason::Replaced.into();
                    outbox.send(mailbox, to, ToShard::Close { order, sessions: vec![session], reason, text: None });
                }
                Action::OpenRelay { key, from, to } => {
                    let (sender, receiver) = relay(&self.stream);
                    outbox.send(mailbox, from, ToShard::RelayOpen { key: key.clone(), to, queue: sender });
                    outbox.send(mailbox, to, ToShard::RelayAttach { key, queue: receiver });
                }
                Action::CloseRelay { key, from, to } => {
                    outbox.send(mailbox, from, ToShard::RelayClose { key, to });
                }
                Action::Happened(event) => {
                    self.shared.view().publish_replaced = self.registry.replaced();
                    let now = event.at;
                    self.event(now, Event::Stream(event));
                }
            }
        }
        for (to, mail) in self.out.drain(..) {
            outbox.send(mailbox, to, mail);
        }
    }

    /// Drains and stops.
    fn end<M: Mailbox>(&mut self, now: Instant, outbox: &mut Outbox, mailbox: &mut M) {
        let asked = *self.ending.borrow_and_update();
        let running: Vec<_> = outbox.running().collect();
        match (asked, self.last_call) {
            (Ending::Drain { over }, None) => {
                let deadline = now + over;
                for &shard in &running {
                    outbox.send(mailbox, shard, ToShard::Drain { deadline });
                }
                self.event(now, Event::Server(ServerEvent { at: now, what: ServerWhat::Draining }));
                self.last_call = Some((deadline + self.stop_after, LastCall::Stop));
            }
            (Ending::Now, None | Some((_, LastCall::Stop))) => self.stop(now, &running, outbox, mailbox),
            (_, Some((at, LastCall::Stop))) if at <= now => self.stop(now, &running, outbox, mailbox),
            _ => {}
        }
    }

    fn stop<M: Mailbox>(&mut self, now: Instant, running: &[ShardId], outbox: &mut Outbox, mailbox: &mut M) {
        for &shard in running {
            outbox.send(mailbox, shard, ToShard::Stop);
        }
        if self.last_call.is_none() {
            self.event(now, Event::Server(ServerEvent { at: now, what: ServerWhat::Draining }));
        }
        self.last_call = Some((now + self.leave_after, LastCall::Leave));
    }

    /// True when nothing is left to wait for. Shards that end by themselves end control too: nobody is left to
    /// serve.
    fn is_over(&self, now: Instant, outbox: &Outbox) -> bool {
        if outbox.running().next().is_none() {
            return true;
        }
        let Some((at, LastCall::Leave)) = self.last_call else { return false };
        if at > now {
            return false;
        }
        for shard in outbox.running() {
            tracing::error!(worker = shard.0, "shard_did_not_stop");
        }
        true
    }

    /// Nobody publishes any more, and whoever follows streams must not believe that they live for ever.
    fn end_streams<M: Mailbox>(&mut self, now: Instant, outbox: &mut Outbox, mailbox: &mut M) {
        self.registry.end(now, Reason::Drain.into());
        self.carry_out(outbox, mailbox);
        self.shared.happened.notify_waiters();
        if !self.journal.has_record() {
            self.shared.recorded.notify_waiters();
        }
    }

    fn note_dropped(&mut self, outbox: &Outbox) {
        if outbox.dropped > self.dropped_noted {
            tracing::error!(mails = outbox.dropped - self.dropped_noted, "mail_dropped");
            self.dropped_noted = outbox.dropped;
        }
    }
}

/// The slowness that the tests ask for by name: all of control stands still for a while, as it would behind a slow disk.
#[cfg(feature = "faults")]
fn fault(key: &crate::names::StreamKey) {
    if key.stream() == "fault-slow-control" {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Control is the one room above the API that reads the clock, here.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
