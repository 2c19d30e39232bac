//! Who sits where: the counts behind the limits, exact because there is one place that counts.
//!
//! A session takes its seats with the verdict and gives them back when it is closed. Publishers and players are counted
//! apart. Publishers of one stream take one seat together: one of them holds the stream and the others are about to
//! replace it or to be refused, so an encoder that comes back while its old connection hangs is not one too many.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use crate::admission::desk::{EgressScope, Measured};
use crate::admission::settings::Limits;
use crate::admission::token::Digest;
use crate::admission::{AtLimit, Terms};
use crate::names::{Kind, SessionId, StreamKey};
use crate::session::{CloseReason, Facts, Reason};

/// What sessions are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One user.
    User(Box<str>),
    /// One token.
    Token(Digest),
    /// One source.
    Address(IpAddr),
    /// One stream.
    Stream(StreamKey),
    /// One app, by its vhost and its name.
    App(Box<str>, Box<str>),
    /// All.
    Server,
}

impl Scope {
    /// The detail of a refusal.
    fn word(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Token(_) => "token",
            Self::Address(_) => "ip",
            Self::Stream(_) => "stream",
            Self::App(..) => "app",
            Self::Server => "server",
        }
    }
}

/// A session that wants to sit down, or sits.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose.
    pub session: SessionId,
    /// What it does.
    pub kind: Kind,
    /// On which stream, after the verdict.
    pub key: StreamKey,
    /// Where it is counted.
    scopes: Vec<(Scope, Rule)>,
    /// What a player is expected to take, while it has not been measured.
    egress_bps: u64,
    /// The place in the order of admission.
    order: u64,
}

/// What holds in a scope.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// How many at once; 0 is any number.
    limit: u32,
    at_limit: AtLimit,
}

impl Claim {
    /// True when a limit may count it.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        !self.scopes.is_empty()
    }

    /// True while what it takes is only expected.
    #[must_use]
    pub fn is_unmeasured(&self) -> bool {
        self.egress_bps > 0
    }
}

/// There is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Why.
    pub reason: CloseReason,
    /// Whose end would make room, where that is wanted.
    pub victim: Option<SessionId>,
}

/// See the module.
pub struct Seats {
    limits: Limits,
    taken: HashMap<(Scope, Kind), Taken>,
    publishing: HashMap<StreamKey, Vec<Claim>>,
    /// Bits a second of players that were admitted and are not measured yet.
    unmeasured: HashMap<Scope, u64>,
    admitted: u64,
}

#[derive(Default)]
struct Taken {
    count: u32,
    /// Those that have not been told to go, oldest first.
    evictable: BTreeSet<(u64, SessionId)>,
}

/// Publishers of one stream that are looked at. More than two at once are a flood, and it is not counted out.
const SAME_STREAM_MAX: usize = 16;

impl Seats {
    /// All seats are free.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, taken: HashMap::new(), publishing: HashMap::new(), unmeasured: HashMap::new(), admitted: 0 }
    }

    /// What `facts` would take on `key` with these terms.
    pub fn claim(
        &self,
        facts: &Facts,
        key: &StreamKey,
        terms: &Terms,
        token: Option<Digest>,
        measured: &dyn Measured,
    ) -> Claim {
        let limits = &self.limits;
        let ours = |limit| Rule { limit, at_limit: limits.at_limit };
        // A back end speaks for its user; whose sessions go for another limit is ours to say.
        let own = |limit| Rule {
            limit: terms.sessions_max.unwrap_or(limit),
            at_limit: terms.at_limit.unwrap_or(limits.at_limit),
        };
        let mut scopes = Vec::new();
        if let Some(user) = &terms.user {
            // Counted even without a limit: the next answer about this user may bring one.
            scopes.push((Scope::User(user.clone()), own(limits.sessions_per_user)));
        }
        if let Some(token) = token {
            // Without a name the token is the user.
            let limit = limits.sessions_per_token;
            scopes.push((Scope::Token(token), if terms.user.is_none() { own(limit) } else { ours(limit) }));
        }
        if limits.sessions_per_address > 0 {
            scopes.push((Scope::Address(source(facts.remote.ip())), ours(limits.sessions_per_address)));
        }
        // Who publishes a stream is the registry's question.
        if limits.sessions_per_stream > 0 && facts.kind == Kind::Play {
            scopes.push((Scope::Stream(key.clone()), ours(limits.sessions_per_stream)));
        }
        if limits.sessions_per_app > 0 {
            scopes.push((Scope::App(key.vhost().into(), key.app().into()), ours(limits.sessions_per_app)));
        }
        if limits.sessions_per_server > 0 {
            scopes.push((Scope::Server, ours(limits.sessions_per_server)));
        }
        scopes.retain(|(scope, rule)| rule.limit > 0 || matches!(scope, Scope::User(_)));
        let egress_bps = match measured.stream_bps(key) {
            _ if facts.kind != Kind::Play || !self.has_egress_limit() => 0,
            0 => limits.egress_bps_expected,
            bps => bps,
        };
        Claim { session: facts.id, kind: facts.kind, key: key.clone(), scopes, egress_bps, order: 0 }
    }

    /// Takes the seats, all or none.
    ///
    /// # Errors
    /// The first limit that is reached.
    pub fn take(&mut self, mut claim: Claim, measured: &dyn Measured) -> Result<Claim, Full> {
        self.check(&claim, measured)?;
        self.admitted += 1;
        claim.order = self.admitted;
        for (scope, _) in &claim.scopes {
            let taken = self.taken.entry((scope.clone(), claim.kind)).or_default();
            taken.count += 1;
            taken.evictable.insert((claim.order, claim.session));
        }
        if claim.kind == Kind::Publish && !claim.scopes.is_empty() {
            self.publishing.entry(claim.key.clone()).or_default().push(claim.clone());
        }
        if claim.egress_bps > 0 {
            for scope in egress_scopes(&claim.key) {
                let sum = self.unmeasured.entry(scope).or_default();
                *sum = sum.saturating_add(claim.egress_bps);
            }
        }
        Ok(claim)
    }

    /// Gives the seats back.
    pub fn free(&mut self, claim: &mut Claim) {
        self.measured(claim);
        for (scope, _) in &claim.scopes {
            let place = (scope.clone(), claim.kind);
            if let Some(taken) = self.taken.get_mut(&place) {
                taken.count = taken.count.saturating_sub(1);
                taken.evictable.remove(&(claim.order, claim.session));
                if taken.count == 0 {
                    self.taken.remove(&place);
                }
            }
        }
        if claim.kind == Kind::Publish
            && let Some(same) = self.publishing.get_mut(&claim.key)
        {
            same.retain(|other| other.session != claim.session);
            if same.is_empty() {
                self.publishing.remove(&claim.key);
            }
        }
    }

    /// The session has been told to go: nobody else waits for its seats.
    pub fn leaving(&mut self, claim: &Claim) {
        for (scope, _) in &claim.scopes {
            if let Some(taken) = self.taken.get_mut(&(scope.clone(), claim.kind)) {
                taken.evictable.remove(&(claim.order, claim.session));
            }
        }
    }

    /// What the player takes is in the measured rates by now.
    pub fn measured(&mut self, claim: &mut Claim) {
        let bps = std::mem::take(&mut claim.egress_bps);
        if bps == 0 {
            return;
        }
        for scope in egress_scopes(&claim.key) {
            if let Some(sum) = self.unmeasured.get_mut(&scope) {
                *sum = sum.saturating_sub(bps);
                if *sum == 0 {
                    self.unmeasured.remove(&scope);
                }
            }
        }
    }

    /// Sessions in a scope.
    #[must_use]
    pub fn count(&self, scope: &Scope, kind: Kind) -> u32 {
        self.taken.get(&(scope.clone(), kind)).map_or(0, |taken| taken.count)
    }

    /// True when nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.publishing.is_empty() && self.unmeasured.is_empty()
    }

    fn has_egress_limit(&self) -> bool {
        let limits = &self.limits;
        limits.egress_bps_per_stream > 0 || limits.egress_bps_per_app > 0 || limits.egress_bps_per_server > 0
    }

    fn check(&self, claim: &Claim, measured: &dyn Measured) -> Result<(), Full> {
        for (scope, rule) in claim.scopes.iter().filter(|(_, rule)| rule.limit > 0) {
            let Some(taken) = self.taken.get(&(scope.clone(), claim.kind)) else { continue };
            if taken.count.saturating_sub(self.same_stream(claim, scope)) < rule.limit {
                continue;
            }
            let oldest = taken.evictable.first().map(|(_, session)| *session);
            return Err(Full {
                reason: CloseReason::with(Reason::ConcurrencyLimit, scope.word()),
                victim: oldest.filter(|_| rule.at_limit == AtLimit::EvictOldest),
            });
        }
        if claim.egress_bps == 0 {
            return Ok(());
        }
        let limits = &self.limits;
        let rules = [
            (limits.egress_bps_per_stream, "admission.limits.egress_bps_per_stream"),
            (limits.egress_bps_per_app, "admission.limits.egress_bps_per_app"),
            (limits.egress_bps_per_server, "admission.limits.egress_bps_per_server"),
        ];
        let rules = egress_scopes(&claim.key).into_iter().zip(rules).filter(|(_, (limit, _))| *limit > 0);
        for (scope, (limit, key)) in rules {
            let known = measured.egress_bps(match &scope {
                Scope::Stream(key) => EgressScope::Stream(key),
                Scope::App(vhost, app) => EgressScope::App(vhost, app),
                _ => EgressScope::Server,
            });
            let unmeasured = self.unmeasured.get(&scope).copied().unwrap_or(0);
            if known.saturating_add(unmeasured).saturating_add(claim.egress_bps) > limit {
                return Err(Full { reason: CloseReason::with(Reason::LimitExceeded, key), victim: None });
            }
        }
        Ok(())
    }

    /// Publishers of the claim's own stream in `scope`, whom it replaces or by whom it is refused.
    fn same_stream(&self, claim: &Claim, scope: &Scope) -> u32 {
        let same = self.publishing.get(&claim.key).filter(|_| claim.kind == Kind::Publish);
        let same = same.into_iter().flatten().take(SAME_STREAM_MAX);
        let same = same.filter(|other| other.scopes.iter().any(|(counted, _)| counted == scope)).count();
        u32::try_from(same).unwrap_or(0)
    }
}

fn egress_scopes(key: &StreamKey) -> [Scope; 3] {
    [Scope::Stream(key.clone()), Scope::App(key.vhost().into(), key.app().into()), Scope::Server]
}

/// An IPv4 address, or the /64 of an IPv6 address: what one subscriber line has.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}
