//! What stands before every request, whatever the rules of admission say: load, defects, sources that fail too often.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::adapter::{Core, Settings};
use crate::admission::{Load, Request, SessionTypes, Sources};
use crate::names::{Kind, Protocol};
use crate::proto::rtmp;
use crate::session::{CloseReason, Reason, SessionKey, What};

/// See the module. Without sources and types it lets everybody pass.
pub struct Guard {
    /// Where peers come from, and how often they failed.
    pub sources: Option<Arc<Sources>>,
    /// What failed by a defect of ours.
    pub types: Option<Arc<SessionTypes>>,
    load: Load,
    /// Nothing can be recorded of newcomers, and they are to stay outside for it.
    is_unrecorded: bool,
    /// The settings of a server without pressure.
    sessions: Settings,
    rtmp: Arc<rtmp::Settings>,
}

impl Guard {
    /// A guard of a server without pressure.
    #[must_use]
    pub fn new(sessions: Settings, rtmp: Arc<rtmp::Settings>) -> Self {
        Self { sources: None, types: None, load: Load::default(), is_unrecorded: false, sessions, rtmp }
    }

    /// How hard pressed the server is.
    #[must_use]
    pub fn load(&self) -> Load {
        self.load
    }

    /// Whether newcomers can be recorded, or need not be. Who is here stays either way.
    pub fn set_recorded(&mut self, is_recorded: bool) {
        self.is_unrecorded = !is_recorded;
    }

    /// Why a request is refused before anybody is asked, if it is.
    #[must_use]
    pub fn refusal(&self, now: Instant, request: &Request) -> Option<CloseReason> {
        if self.types.as_ref().is_some_and(|types| types.is_disabled(request.protocol, request.kind)) {
            return Some(CloseReason::with(Reason::InternalError, "type_disabled"));
        }
        if self.sources.as_ref().is_some_and(|sources| sources.is_refused(now, request.remote)) {
            return Some(CloseReason::with(Reason::LimitExceeded, "auth_failures_per_ip"));
        }
        if self.is_unrecorded && matches!(request.kind, Kind::Publish | Kind::Play) {
            return Some(CloseReason::with(Reason::Overload, "ledger"));
        }
        self.load.state.refuses(request.kind)
    }

    /// Somebody was refused: counts it if it was for what they said of themselves. That nobody could decide is
    /// not the peer's failure, and who is refused for its address cannot guess a better one.
    pub fn note_refusal(&self, now: Instant, remote: SocketAddr, reason: CloseReason) {
        let is_failure = matches!(reason.reason, Reason::AuthDenied | Reason::ReauthDenied | Reason::TokenExpired);
        if let Some(sources) = self.sources.as_ref().filter(|_| is_failure) {
            sources.note_failure(now, remote);
        }
    }

    /// A session of this type met a defect of ours. True when its type is refused from now on.
    #[must_use]
    pub fn note_defect(&self, now: Instant, protocol: Protocol, kind: Kind) -> bool {
        self.types.as_ref().is_some_and(|types| types.on_defect(now, protocol, kind))
    }
}

impl Core {
    /// The server is under more pressure than before, or less: what newcomers and streams obey from now on. Connections
    /// that are here adopt it one by one.
    pub fn set_load(&mut self, load: Load) {
        self.guard.load = load;
        let patience = |whole: Duration| load.patience(whole);
        let whole = &self.guard.sessions;
        self.settings.play_wait = patience(whole.play_wait);
        self.settings.first_keyframe = patience(whole.first_keyframe);
        self.settings.no_progress = patience(whole.no_progress);
        let whole = &self.guard.rtmp;
        self.rtmp = Arc::new(whole.pressed(patience, load.state.glitches_max(whole.glitches_max)));
        self.streams.halve_caches(load.state != crate::admission::LoadState::Green);
    }

    /// Puts new settings in force, under the pressure that there is.
    pub fn configure(&mut self, settings: Settings, rtmp: Arc<rtmp::Settings>) {
        self.settings = settings.clone();
        self.guard.sessions = settings;
        self.guard.rtmp = rtmp;
        self.set_load(self.guard.load);
        if let Some(types) = &self.guard.types {
            types.reset();
        }
    }

    /// Counts what happened to a session against its source.
    pub(super) fn note_failure(&self, now: Instant, key: SessionKey, what: &What) {
        if let (What::Denied(reason), Some(facts)) = (what, self.sessions.facts(key)) {
            self.guard.note_refusal(now, facts.remote, *reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::load::LoadState;
    use crate::admission::sources::Limits;
    use crate::admission::{Access, Bans, Decision, Gate, Policy};
    use crate::names::{Name, ShardId, StreamKey};
    use crate::stdx::clock::WallAnchor;

    fn core(publish: Access) -> Core {
        let settings = crate::admission::Settings { publish, ..crate::admission::Settings::default() };
        let policy = Policy { gate: Arc::new(Gate::new(&settings, &[])), bans: Bans::default() };
        let wall = WallAnchor::at(Instant::now(), Duration::from_secs(1));
        let rtmp = Arc::new(rtmp::Settings::default());
        Core::new(ShardId(0), Settings::default(), rtmp, crate::stream::Settings::default(), policy, wall, 1)
    }

    fn ask(kind: Kind) -> Request {
        let part = |text| Name::app(text).unwrap();
        Request {
            kind,
            protocol: Protocol::Rtmp,
            key: StreamKey::new(&part("v"), &part("a"), &part("s")),
            remote: "192.0.2.1:5000".parse().unwrap(),
            local: "192.0.2.9:1935".parse().unwrap(),
            query: None,
        }
    }

    fn refused(decision: &Decision) -> Option<String> {
        match decision {
            Decision::Allow | Decision::Ask => None,
            Decision::Deny(reason) => Some(reason.to_string()),
        }
    }

    #[test]
    fn load_orange_refuses_viewers_and_red_publishers() {
        let now = Instant::now();
        let mut core = core(Access::Open);
        for (state, publish, play) in [
            (LoadState::Yellow, None, None),
            (LoadState::Orange, None, Some("overload:orange")),
            (LoadState::Red, Some("overload:red"), Some("overload:red")),
            (LoadState::Green, None, None),
        ] {
            core.set_load(Load { state, patience_percent: 100 });
            assert_eq!(refused(&core.decide(now, &ask(Kind::Publish))).as_deref(), publish, "{state:?}");
            assert_eq!(refused(&core.decide(now, &ask(Kind::Play))).as_deref(), play, "{state:?}");
        }
    }

    #[test]
    fn fa_13_nobody_comes_in_while_nothing_can_be_recorded() {
        let now = Instant::now();
        let mut core = core(Access::Open);
        core.guard.set_recorded(false);
        for kind in [Kind::Publish, Kind::Play] {
            assert_eq!(refused(&core.decide(now, &ask(kind))).as_deref(), Some("overload:ledger"));
        }
        core.guard.set_recorded(true);
        assert_eq!(refused(&core.decide(now, &ask(Kind::Play))), None);
    }

    #[test]
    fn load_yellow_shrinks_deadlines_and_green_restores_them() {
        let mut core = core(Access::Open);
        let (sessions, rtmp) = (core.settings.clone(), Arc::clone(&core.rtmp));
        core.set_load(Load { state: LoadState::Orange, patience_percent: 50 });
        assert_eq!(core.settings.no_progress, sessions.no_progress / 2);
        assert_eq!(core.rtmp.handshake_timeout, rtmp.handshake_timeout / 2);
        assert_eq!(core.rtmp.media_timeout, rtmp.media_timeout / 2);
        assert_eq!(core.rtmp.glitches_max, 8);
        core.set_load(Load::default());
        assert_eq!(core.settings, sessions);
        assert_eq!(core.rtmp, rtmp);
    }

    #[test]
    fn limits_auth_failures_per_ip_are_counted_where_rules_refuse_and_end_the_asking() {
        let now = Instant::now();
        let mut core = core(Access::Deny);
        let limits = Limits {
            connections_per_ip: 0,
            unauthenticated_per_ip: 0,
            accept_rate_per_ip: 0,
            auth_failures_per_ip: 2,
            table: 8,
            unauthenticated: 0,
        };
        core.guard.sources = Some(Arc::new(Sources::new(limits, now)));
        for _ in 0..5 {
            assert_eq!(
                refused(&core.decide(now, &ask(Kind::Publish))).as_deref(),
                Some("auth_denied:admission.publish")
            );
        }
        let told = Some("limit_exceeded:auth_failures_per_ip");
        assert_eq!(refused(&core.decide(now, &ask(Kind::Publish))).as_deref(), told);
        assert_eq!(refused(&core.decide(now, &ask(Kind::Play))).as_deref(), told);
        assert_eq!(refused(&core.decide(now + Duration::from_secs(61), &ask(Kind::Play))), None);
    }

    #[test]
    fn limits_auth_failures_do_not_blame_the_peer_for_a_back_end_that_is_down_or_for_its_address() {
        let now = Instant::now();
        let mut core = core(Access::Open);
        let limits = crate::admission::sources::Limits {
            connections_per_ip: 0,
            unauthenticated_per_ip: 0,
            accept_rate_per_ip: 0,
            auth_failures_per_ip: 1,
            table: 8,
            unauthenticated: 0,
        };
        core.guard.sources = Some(Arc::new(Sources::new(limits, now)));
        for _ in 0..100 {
            core.guard.note_refusal(now, ask(Kind::Play).remote, Reason::AuthUnavailable.into());
            core.guard.note_refusal(now, ask(Kind::Play).remote, Reason::Banned.into());
            core.guard.note_refusal(now, ask(Kind::Play).remote, Reason::IpDenied.into());
        }
        assert_eq!(refused(&core.decide(now, &ask(Kind::Play))), None);
    }

    #[test]
    fn fa_26_a_disabled_type_is_refused() {
        let now = Instant::now();
        let mut core = core(Access::Open);
        core.guard.types = Some(Arc::new(SessionTypes::new(now)));
        assert!(!core.guard.note_defect(now, Protocol::Rtmp, Kind::Publish));
        assert_eq!(refused(&core.decide(now, &ask(Kind::Publish))), None);
        assert!(core.guard.note_defect(now, Protocol::Rtmp, Kind::Publish));
        assert_eq!(refused(&core.decide(now, &ask(Kind::Publish))).as_deref(), Some("internal_error:type_disabled"));
        assert_eq!(refused(&core.decide(now, &ask(Kind::Play))), None);
    }
}
