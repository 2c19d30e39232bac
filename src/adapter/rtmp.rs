//! RTMP: one connection's engine, tied to its session, its stream and the rules. What it writes is in `writing`.

mod packager;
mod refusals;
mod writing;

pub use packager::Packager;
pub use writing::Offered;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::adapter::rtmp::refusals::{NO_KEYFRAME, NOT_FOUND, bad_name, reason_of, refusal, refusal_bad_name};
use crate::adapter::streams::Entry;
use crate::adapter::{Core, Outgoing, StreamSlot};
use crate::admission::{Decision, Request, Ticket, Verdict};
use crate::event::Wanted;
use crate::media::Frame;
use crate::names::{ConnectionId, DEFAULT_VHOST, Kind, Name, Protocol, StreamKey};
use crate::proto::rtmp::server::{ConnectInfo, Refusal, RequestId, Server, ServerEvent, Trace, query_value};
use crate::session::{CloseReason, Facts, Reason, SessionKey, State, What};
use crate::stream::{Cursor, Due, Subscriber};

/// One connection.
pub struct Rtmp {
    engine: Server,
    connection: ConnectionId,
    me: Subscriber,
    remote: SocketAddr,
    local: SocketAddr,
    /// First contact of the next session: the accept, or the end of the previous session.
    contact_at: Instant,
    connect: Option<Box<Connect>>,
    /// Bytes that came and went before there was a session to book them on.
    unbooked: (u64, u64),
    had_session: bool,
    /// A session that has ended and whose last answers are still to be written: they are its bytes.
    ending: Option<(SessionKey, CloseReason)>,
    /// Of the engine's glitches, those that the shard has counted.
    glitches: u32,
    /// When to look after the session next.
    look_at: Instant,
    /// Until when the engine's last words may wait for the peer to take them.
    last_words_until: Option<Instant>,
    role: Role,
}

/// What `connect` said, validated.
struct Connect {
    vhost: Name,
    app: Name,
    info: ConnectInfo,
}

/// What the connection is doing.
enum Role {
    /// Nothing yet, or nothing any more.
    Idle,
    /// Control is asked whether it may.
    Asking(Asking),
    /// It publishes.
    Publishing(Publishing),
    /// It plays, or waits for somebody to publish.
    Playing(Box<Playing>),
}

struct Asking {
    request: RequestId,
    session: SessionKey,
    kind: Kind,
    ticket: Ticket,
    key: StreamKey,
    /// When to stop waiting for control.
    until: Instant,
    /// What a player has said meanwhile: whether it pauses, and which of audio and video it wants.
    paused: bool,
    wants: (bool, bool),
}

struct Publishing {
    request: RequestId,
    session: SessionKey,
    slot: StreamSlot,
    key: StreamKey,
    last_frame_at: Instant,
    updated_at: Instant,
    /// The generation of the stream's headers that the session last reported.
    headers: u32,
}

struct Playing {
    request: RequestId,
    session: SessionKey,
    slot: StreamSlot,
    cursor: Cursor,
    /// Audio and video (`receiveAudio`, `receiveVideo`).
    wants: (bool, bool),
    /// The generation of the stream's headers that the player has, once it has any.
    headers: Option<u32>,
    /// When to give up waiting, first for a publisher and then for its first keyframe; `None` once media came.
    wait_until: Option<Instant>,
    /// It is the keyframe that is waited for.
    saw_publisher: bool,
    /// The most bytes that ever waited for this player.
    queue_peak: u64,
    last_write_at: Instant,
    /// Since when the peer takes nothing although something is due.
    blocked_since: Option<Instant>,
    updated_at: Instant,
}

impl Rtmp {
    /// A connection that was accepted at `now`.
    #[must_use]
    pub fn new(
        core: &Core,
        now: Instant,
        connection: ConnectionId,
        me: Subscriber,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> Self {
        Self {
            engine: Server::new(&core.rtmp, now),
            connection,
            me,
            remote,
            local,
            contact_at: now,
            connect: None,
            unbooked: (0, 0),
            had_session: false,
            ending: None,
            glitches: 0,
            look_at: now,
            last_words_until: None,
            role: Role::Idle,
        }
    }

    /// Begins a turn in which so many messages are obeyed and no more.
    pub fn begin_turn(&mut self, messages: u32) {
        self.engine.begin_turn(messages);
    }

    /// True while bytes that came wait for the next turn.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.engine.has_more()
    }

    /// Takes bytes from the peer.
    ///
    /// # Errors
    /// Why the connection is to be closed, once what is in the output has been offered to the peer.
    pub fn handle_bytes(&mut self, now: Instant, core: &mut Core, input: &[u8]) -> Result<(), CloseReason> {
        self.book(core, input.len() as u64, 0);
        let result = self.engine.handle_bytes(now, input);
        self.on_input(now, core);
        result.map_err(reason_of)
    }

    /// Goes on with the bytes that the last turn left.
    ///
    /// # Errors
    /// As for [`handle_bytes`](Self::handle_bytes).
    pub fn handle_more(&mut self, now: Instant, core: &mut Core) -> Result<(), CloseReason> {
        let result = self.engine.handle_more(now);
        self.on_input(now, core);
        result.map_err(reason_of)
    }

    fn on_input(&mut self, now: Instant, core: &mut Core) {
        self.handle_events(now, core);
        if self.engine.glitches() != self.glitches {
            self.glitches = self.engine.glitches();
            core.glitches.add(&self.engine.take_glitches());
        }
    }

    /// Looks at the clock: the engine's deadlines, a player's wait, a session that stalls or is due to report.
    ///
    /// # Errors
    /// Why the connection is to be closed.
    pub fn handle_timeout(&mut self, now: Instant, core: &mut Core) -> Result<(), CloseReason> {
        self.engine.handle_timeout(now).map_err(reason_of)?;
        self.handle_events(now, core);
        if self.last_words_until.is_some_and(|until| until <= now) {
            return Err(CloseReason::with(Reason::ProtocolError, "refused"));
        }
        if self.look_at > now {
            return Ok(());
        }
        self.look_at = now + LOOK_EVERY;
        // A player that is full is not asked by the pump: whether it fell out of the window is found here.
        if let Due::GiveUp { .. } = self.prepare(now, core) {
            return Err(CloseReason::with(Reason::SlowConsumer, "overflows"));
        }
        let stall_after = core.settings.stall_after;
        let update_every = core.settings.update_every;
        match &mut self.role {
            Role::Asking(it) if it.until <= now => {
                let reason = CloseReason::with(Reason::AuthUnavailable, "verdict_timeout");
                self.engine.goodbye(refusal(reason, it.kind));
                return Err(reason);
            }
            Role::Idle | Role::Asking(_) => {}
            Role::Publishing(it) => {
                watch(now, core, it.session, it.last_frame_at, stall_after, &mut it.updated_at, update_every);
            }
            Role::Playing(it) => {
                watch(now, core, it.session, it.last_write_at, stall_after, &mut it.updated_at, update_every);
                if let Some(until) = it.wait_until {
                    let is_published = core.streams.get(it.slot).is_some_and(|entry| entry.live.is_published());
                    if is_published && !it.saw_publisher {
                        it.saw_publisher = true;
                        it.wait_until = Some(now + core.settings.first_keyframe);
                    } else if until <= now && is_published {
                        self.engine.goodbye(NO_KEYFRAME);
                        return Err(CloseReason::with(Reason::StreamEnded, "no_keyframe"));
                    } else if until <= now && it.saw_publisher {
                        // Its publisher came and went: the stream's own end decides.
                        it.wait_until = None;
                    } else if until <= now {
                        self.engine.goodbye(NOT_FOUND);
                        return Err(CloseReason::with(Reason::StreamEnded, "never_published"));
                    }
                }
                if it
                    .blocked_since
                    .is_some_and(|since| now.saturating_duration_since(since) >= core.settings.no_progress)
                {
                    return Err(CloseReason::with(Reason::SlowConsumer, "no_progress"));
                }
            }
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called: at the engine's deadline, and every now and then
    /// while there is a session to look after.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let own = match &self.role {
            Role::Idle => None,
            Role::Asking(it) => Some(it.until),
            Role::Publishing(_) | Role::Playing(_) => Some(self.look_at),
        };
        self.engine.next_deadline().into_iter().chain(own).chain(self.last_words_until).min()
    }

    /// Why nothing more comes of the connection: the peer broke a rule, or the engine has refused it and the refusal is
    /// out.
    #[must_use]
    pub fn end(&mut self) -> Option<CloseReason> {
        if let Some(error) = self.engine.failure() {
            return Some(reason_of(error));
        }
        let is_refused = self.engine.is_closing() && self.engine.output().is_empty();
        is_refused.then(|| CloseReason::with(Reason::ProtocolError, "refused"))
    }

    /// True when bytes wait that no player's cursor brought.
    #[must_use]
    pub fn has_output(&mut self) -> bool {
        !self.engine.output().is_empty()
    }

    /// What happened last on the connection.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        self.engine.trace()
    }

    /// The session that it is, if it is one.
    #[must_use]
    pub fn facts<'a>(&self, core: &'a Core) -> Option<&'a Arc<Facts>> {
        core.sessions.facts(self.session()?)
    }

    /// The pressure on the server has changed: its deadlines are the core's from now on.
    pub fn adopt(&mut self, core: &Core) {
        self.engine.adopt(&core.rtmp);
    }

    /// True once the connection is admitted to publish or play.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        matches!(self.role, Role::Publishing(_) | Role::Playing(_))
    }

    /// When a player was last sent media; `None` for everybody else.
    #[must_use]
    pub fn media_written_at(&self) -> Option<Instant> {
        match &self.role {
            Role::Playing(it) => Some(it.last_write_at),
            _ => None,
        }
    }

    /// True while it publishes or asks to.
    #[must_use]
    pub fn is_publisher(&self) -> bool {
        match &self.role {
            Role::Publishing(_) => true,
            Role::Asking(it) => it.kind.is_source(),
            Role::Idle | Role::Playing(_) => false,
        }
    }

    /// Whether the connection's socket should be read now: not while media waits for a verdict, and not while a
    /// publisher's timestamps run ahead of the clock and somebody watches (it would only push its own viewers out of
    /// the window).
    #[must_use]
    pub fn wants_read(&self, now: Instant, core: &Core) -> bool {
        if !self.engine.wants_read() {
            return false;
        }
        let lead_max = core.settings.publish_lead_max;
        match &self.role {
            Role::Publishing(it) if lead_max > Duration::ZERO => {
                core.streams.get(it.slot).is_none_or(|entry| !entry.is_watched() || entry.live.lead(now) <= lead_max)
            }
            _ => true,
        }
    }

    /// Published bytes that the pump has not handed out: what its socket is not read beyond.
    #[must_use]
    pub fn unflushed_bytes(&self, core: &Core) -> u64 {
        match &self.role {
            Role::Publishing(it) => core.streams.get(it.slot).map_or(0, Entry::unflushed_bytes),
            _ => 0,
        }
    }

    /// The answer to a question that was asked for this connection.
    pub fn handle_verdict(&mut self, now: Instant, core: &mut Core, answered: Ticket, verdict: Verdict) {
        let Role::Asking(Asking { request, session, kind, ticket, paused, wants, .. }) = self.role else { return };
        if ticket != answered {
            return;
        }
        let Some(facts) = core.sessions.facts(session).map(Arc::clone) else { return };
        let id = facts.id;
        let verdict = verdict.and_then(|grant| {
            let is_banned = core.is_banned_by_now(now, &facts, &grant.key);
            if is_banned { Err(Box::new(grant.refused(Reason::Banned.into()))) } else { Ok(grant) }
        });
        match verdict {
            Ok(grant) if !kind.is_source() => {
                core.authorize(now, session, grant.identity());
                self.start_play(now, core, request, session, &grant.key);
                self.on_receive(request, Some(wants.0), Some(wants.1));
                if paused {
                    self.on_pause(request, true);
                }
                self.handle_events(now, core);
            }
            Ok(grant) => {
                core.authorize(now, session, grant.identity());
                let key = grant.key;
                let slot = core.streams.publish(now, &key, id);
                self.role = Role::Publishing(Publishing {
                    request,
                    session,
                    slot,
                    key,
                    last_frame_at: now,
                    updated_at: now,
                    headers: 0,
                });
                self.engine.accept_publish(now, request);
                self.handle_events(now, core);
            }
            Err(denied) => {
                let reason = denied.reason;
                let mut refusal = refusal(reason, kind);
                if let Some(text) = &denied.text {
                    refusal.description = text;
                }
                self.engine.reject_to(request, refusal, denied.redirect.as_deref());
                self.role = Role::Idle;
                core.sessions.identify(session, denied.user.as_deref(), &denied.labels);
                core.record(now, session, What::Denied(reason));
                self.ending = Some((session, reason));
            }
        }
    }

    /// The stream that this connection plays has ended: its resume window passed.
    pub fn handle_stream_end(&mut self, now: Instant, core: &mut Core, ended: StreamSlot) {
        let Role::Playing(it) = &self.role else { return };
        if it.slot != ended {
            return;
        }
        let (request, session) = (it.request, it.session);
        self.engine.end_play(request);
        self.keep_remainder(core);
        self.leave(now, core);
        self.ending = Some((session, Reason::StreamEnded.into()));
    }

    /// Says goodbye before the owner closes: the peer's user reads why, in the words of `text` where there are some.
    pub fn say_goodbye(&mut self, reason: CloseReason, text: Option<&str>) {
        let kind = if self.is_publisher() { Kind::Publish } else { Kind::Play };
        let said = refusal(reason, kind);
        self.engine.goodbye(Refusal { description: text.unwrap_or(said.description), ..said });
    }

    /// The connection is closed: ends its session, or records the attempt of one that never had any.
    pub fn handle_close(&mut self, now: Instant, core: &mut Core, reason: CloseReason) {
        self.close_ending(now, core);
        match self.session() {
            Some(session) => {
                self.leave(now, core);
                self.ending = None;
                self.close_session(now, core, session, reason);
            }
            None if !self.had_session => {
                core.attempt_at(now, None, self.remote, reason, self.wanted(None));
                self.had_session = true;
            }
            None => {}
        }
    }

    fn book(&mut self, core: &mut Core, rx: u64, tx: u64) {
        if let Some(counters) = self.session().and_then(|session| core.sessions.counters_mut(session)) {
            counters.rx_bytes += rx;
            counters.tx_bytes += tx;
        } else {
            self.unbooked.0 += rx;
            self.unbooked.1 += tx;
        }
    }

    fn session(&self) -> Option<SessionKey> {
        match &self.role {
            Role::Idle => self.ending.map(|(session, _)| session),
            Role::Asking(it) => Some(it.session),
            Role::Publishing(it) => Some(it.session),
            Role::Playing(it) => Some(it.session),
        }
    }

    fn handle_events(&mut self, now: Instant, core: &mut Core) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                ServerEvent::Frame(frame) => self.on_frame(now, core, frame),
                ServerEvent::Connect(info) => self.on_connect(now, core, *info),
                ServerEvent::Publish { request, stream, query } => {
                    self.on_request(now, core, Kind::Publish, request, &stream, query.as_deref());
                }
                ServerEvent::Play { request, stream, query } => {
                    self.on_request(now, core, Kind::Play, request, &stream, query.as_deref());
                }
                ServerEvent::Refused(kind, rule) => {
                    self.close_ending(now, core);
                    self.refuse_attempt(now, core, Some(kind), None, CloseReason::with(Reason::ProtocolError, rule));
                }
                ServerEvent::Ended(request) => self.on_ended(now, core, request),
                ServerEvent::Pause(request, paused) => self.on_pause(request, paused),
                ServerEvent::ReceiveAudio(request, wanted) => self.on_receive(request, Some(wanted), None),
                ServerEvent::ReceiveVideo(request, wanted) => self.on_receive(request, None, Some(wanted)),
            }
        }
        if self.engine.is_closing() && self.last_words_until.is_none() {
            self.last_words_until = Some(now + LAST_WORDS);
        }
    }

    fn on_receive(&mut self, request: RequestId, audio: Option<bool>, video: Option<bool>) {
        let wants = |before: (bool, bool)| (audio.unwrap_or(before.0), video.unwrap_or(before.1));
        match &mut self.role {
            Role::Playing(it) if it.request == request => {
                it.wants = wants(it.wants);
                it.cursor.set_tracks(it.wants.0, it.wants.1);
            }
            Role::Asking(it) if it.request == request => it.wants = wants(it.wants),
            _ => {}
        }
    }

    fn on_pause(&mut self, request: RequestId, paused: bool) {
        match &mut self.role {
            Role::Playing(it) if it.request == request => {
                it.cursor.pause(paused);
                // A paused player waits because it wants to.
                it.wait_until = None;
            }
            Role::Asking(it) if it.request == request => it.paused = paused,
            _ => {}
        }
    }

    fn on_frame(&mut self, now: Instant, core: &mut Core, frame: Frame) {
        let Role::Publishing(it) = &mut self.role else { return };
        it.last_frame_at = now;
        if let Some(counters) = core.sessions.counters_mut(it.session) {
            counters.rx_frames += 1;
            counters.rx_media_bytes += frame.payload.len() as u64;
        }
        #[cfg(feature = "faults")]
        fault(&it.key);
        let (session, slot, known) = (it.session, it.slot, it.headers);
        let configures = frame.flags.sequence_header || frame.flags.metadata;
        let packager = Packager::new(&core.rtmp);
        core.streams.push(now, slot, frame, &packager);
        match core.sessions.state(session) {
            Some(State::Establishing) => core.record(now, session, What::Started),
            Some(State::Stalling) => core.record(now, session, What::Recovered),
            _ => {}
        }
        if configures {
            let generation = core.streams.get(slot).map_or(known, |entry| entry.live.headers().generation);
            if let Role::Publishing(it) = &mut self.role {
                it.headers = generation;
            }
            // The first headers are part of the start; later ones change what viewers get.
            let counters = core.sessions.counters_mut(session).map(|counters| counters.rx_frames);
            if generation != known
                && counters.is_some_and(|frames| frames > FIRST_HEADERS_FRAMES)
                && core.sessions.state(session) == Some(State::Running)
            {
                core.record(now, session, What::Altered);
            }
        }
    }

    fn on_connect(&mut self, now: Instant, core: &mut Core, info: ConnectInfo) {
        let named = info.query.as_deref().and_then(|query| query_value(query, "vhost"));
        let host = info.vhost.as_deref();
        let known = host.and_then(|host| core.settings.vhosts.iter().find(|it| it.eq_ignore_ascii_case(host)));
        let vhost = named.or(known.map(String::as_str)).unwrap_or(DEFAULT_VHOST);
        match (Name::app(vhost), Name::app(&info.app)) {
            (Ok(vhost), Ok(app)) => {
                self.connect = Some(Box::new(Connect { vhost, app, info }));
                self.engine.accept_connect();
            }
            (Err(error), _) | (_, Err(error)) => {
                self.refuse_attempt(now, core, None, None, bad_name(error));
                self.engine.reject_connect(Refusal {
                    code: "NetConnection.Connect.InvalidApp",
                    description: "The application name is not allowed.",
                });
            }
        }
    }

    fn on_request(
        &mut self,
        now: Instant,
        core: &mut Core,
        kind: Kind,
        request: RequestId,
        stream: &str,
        query: Option<&str>,
    ) {
        self.close_ending(now, core);
        let Some(connect) = &self.connect else { return };
        let name = match Name::stream(stream) {
            Ok(name) => name,
            Err(error) => {
                self.engine.reject(
                    request,
                    Refusal { description: "The stream name is not allowed.", ..refusal_bad_name(kind) },
                );
                return self.refuse_attempt(now, core, Some(kind), None, bad_name(error));
            }
        };
        // `?vhost=` on the stream wins over the one of `connect`: it is the more particular.
        let vhost = match query.and_then(|query| query_value(query, "vhost")) {
            None => connect.vhost.clone(),
            Some(text) => match Name::app(text) {
                Ok(vhost) => vhost,
                Err(error) => {
                    self.engine.reject(
                        request,
                        Refusal { description: "The vhost is not allowed.", ..refusal_bad_name(kind) },
                    );
                    return self.refuse_attempt(now, core, Some(kind), Some(name.as_str()), bad_name(error));
                }
            },
        };
        let key = StreamKey::new(&vhost, &connect.app, &name);
        let query = join_queries(connect.info.query.as_deref(), query);
        let asked = Request {
            kind,
            protocol: Protocol::Rtmp,
            key: key.clone(),
            remote: self.remote,
            local: self.local,
            query: query.clone(),
        };
        let decision = core.decide(now, &asked);
        if let Decision::Deny(reason) = decision {
            self.engine.reject(request, refusal(reason, kind));
            return self.refuse_attempt(now, core, Some(kind), Some(key.stream()), reason);
        }
        let text = |from: &Option<String>| from.as_deref().map(Box::from);
        let facts = Facts {
            id: core.new_id(now),
            connection: self.connection,
            shard: core.shard,
            kind,
            protocol: Protocol::Rtmp,
            key: key.clone(),
            asked_key: None,
            remote: self.remote,
            local: self.local,
            opened_at: self.contact_at,
            opened_unix_ms: core.wall.unix_ms(self.contact_at),
            query,
            user_agent: text(&connect.info.flash_ver),
            referrer: text(&connect.info.page_url),
            tc_url: text(&connect.info.tc_url),
            swf_url: text(&connect.info.swf_url),
            user: None,
            labels: Arc::default(),
        };
        let session = core.open(now, facts, self.me);
        self.had_session = true;
        if let Some(counters) = core.sessions.counters_mut(session) {
            (counters.rx_bytes, counters.tx_bytes) = std::mem::take(&mut self.unbooked);
        }
        // Who publishes a stream only control knows; who plays it, often the shard alone decides.
        if decision == Decision::Allow && !kind.is_source() {
            core.record(now, session, What::Authorized);
            return self.start_play(now, core, request, session, &key);
        }
        let Some(facts) = core.sessions.facts(session).map(Arc::clone) else { return };
        let ticket = core.ask(facts, self.me);
        let until = now + VERDICT_TIMEOUT;
        let (paused, wants) = (false, (true, true));
        self.role = Role::Asking(Asking { request, session, kind, ticket, key, until, paused, wants });
    }

    fn start_play(&mut self, now: Instant, core: &mut Core, request: RequestId, session: SessionKey, key: &StreamKey) {
        self.engine.accept_play(now, request);
        let slot = core.streams.open(now, key);
        if core.streams.subscribe(slot, self.me) {
            core.post_urgent(Outgoing::Subscribe(key.clone()));
        }
        let Some(entry) = core.streams.get(slot) else { return };
        let waits = !entry.live.is_published();
        self.role = Role::Playing(Box::new(Playing {
            request,
            session,
            slot,
            cursor: Cursor::join(&entry.live, now),
            wants: (true, true),
            headers: None,
            // Another shard may publish it, which takes a message there and back to know.
            wait_until: Some(
                now + if waits { core.settings.play_wait.max(KNOWN_AFTER) } else { core.settings.first_keyframe },
            ),
            saw_publisher: !waits,
            queue_peak: 0,
            last_write_at: now,
            blocked_since: None,
            updated_at: now,
        }));
    }

    fn on_ended(&mut self, now: Instant, core: &mut Core, ended: RequestId) {
        let request = match &self.role {
            Role::Idle => return,
            Role::Asking(it) => it.request,
            Role::Publishing(it) => it.request,
            Role::Playing(it) => it.request,
        };
        if request == ended
            && let Some(session) = self.session()
        {
            self.keep_remainder(core);
            self.leave(now, core);
            self.ending = Some((session, Reason::ClientDone.into()));
        }
    }

    /// Takes the connection off its stream.
    fn leave(&mut self, now: Instant, core: &mut Core) {
        // A defect below must not lose the session with the role.
        self.ending = self.session().map(|session| (session, Reason::InternalError.into()));
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Idle => {}
            Role::Asking(it) => {
                core.take_ticket(it.ticket);
                if it.kind.is_source() {
                    post_left(core, it.session, it.key);
                }
            }
            Role::Publishing(it) => {
                if let Some(id) = core.sessions.facts(it.session).map(|facts| facts.id) {
                    core.streams.unpublish(now, it.slot, id);
                }
                post_left(core, it.session, it.key);
            }
            Role::Playing(it) => core.streams.unsubscribe(now, it.slot, self.me),
        }
    }

    /// Closes a session that has ended, once nothing of it is left to be written.
    fn close_ending(&mut self, now: Instant, core: &mut Core) {
        if let Some((session, reason)) = self.ending.take() {
            self.close_session(now, core, session, reason);
        }
    }

    fn close_session(&mut self, now: Instant, core: &mut Core, session: SessionKey, reason: CloseReason) {
        core.close(now, session, reason);
        self.contact_at = now;
    }

    /// Where the peer wanted to go, as far as it has said so.
    fn wanted(&self, stream: Option<&str>) -> Wanted {
        let app = self.connect.as_ref().map(|connect| connect.app.as_str().into());
        Wanted { connection: Some(self.connection), app, stream: stream.map(Into::into) }
    }

    fn refuse_attempt(
        &mut self,
        now: Instant,
        core: &mut Core,
        kind: Option<Kind>,
        stream: Option<&str>,
        reason: CloseReason,
    ) {
        core.attempt_at(now, kind, self.remote, reason, self.wanted(stream));
        // The connection's end says nothing more than this did.
        self.had_session = true;
    }
}

/// A configuration that comes within the first frames is part of the start.
const FIRST_HEADERS_FRAMES: u64 = 8;

/// How long control may take to answer: longer than it waits for any back end and for any seat
/// (`admission.answer_timeout`, `admission.evict_timeout`), so that this ends only what control has lost sight of.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(150);

/// How long a refused peer may take to read why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often a session is looked after: stalls, waits, the window of a player that is full.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The least time a player waits before we say that nobody publishes.
const KNOWN_AFTER: Duration = Duration::from_millis(500);

/// Reports a stall and the periodic update of a session.
fn watch(
    now: Instant,
    core: &mut Core,
    session: SessionKey,
    moved_at: Instant,
    stall_after: Duration,
    updated_at: &mut Instant,
    update_every: Duration,
) {
    if core.sessions.state(session) == Some(State::Running) && now.saturating_duration_since(moved_at) >= stall_after {
        core.record(now, session, What::Stalled);
    }
    if update_every > Duration::ZERO
        && core.sessions.state(session) == Some(State::Running)
        && now.saturating_duration_since(*updated_at) >= update_every
    {
        *updated_at = now;
        let counters = core.sessions.counters_mut(session).map(|counters| *counters);
        if let Some(counters) = counters {
            core.record(now, session, What::Updated(counters));
        }
    }
}

fn post_left(core: &mut Core, session: SessionKey, key: StreamKey) {
    if let Some(id) = core.sessions.facts(session).map(|facts| facts.id) {
        core.post_urgent(Outgoing::PublisherLeft { key, session: id });
    }
}

/// The queries of app and stream, in that order.
fn join_queries(app: Option<&str>, stream: Option<&str>) -> Option<Box<str>> {
    match (app, stream) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one.into()),
        (Some(app), Some(stream)) => Some(format!("{app}&{stream}").into()),
    }
}

/// The defect that the tests ask for by name.
#[cfg(feature = "faults")]
fn fault(key: &StreamKey) {
    assert!(key.stream() != "fault-panic", "asked for by its name");
}
