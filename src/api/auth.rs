//! The door: whose request it is, whether a foreign web page sent it, whether it may, and how often.
//!
//! Without any token configured, peers on loopback may do everything, and nobody else anything. "On loopback"
//! is believed only of a request that nothing has forwarded and that no foreign page has caused: its `Host` is a
//! loopback name (a rebound DNS name is not), it has no forwarding header, and no foreign `Origin`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::api::settings::Role;
use crate::api::{Problem, Settings, dialect, refuse};

/// Refused tokens from one source in [`FAILURES_WITHIN`] after which it is blocked.
const FAILURES_MAX: u32 = 100;
/// See [`FAILURES_MAX`].
const FAILURES_WITHIN: Duration = Duration::from_secs(10);
/// How long a source stays blocked.
const BLOCKED_FOR: Duration = Duration::from_mins(1);
/// Sources remembered; at the limit the one that failed first leaves.
const SOURCES_MAX: usize = 4_096;
/// Requests that may come at once, as a multiple of the rate.
const BURST: f64 = 4.0;

/// Who asks, for handlers that answer some callers more fully. A request that needed no proof has no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub role: Option<Role>,
}

/// What the door knows.
pub struct Door {
    bound_to_loopback: bool,
    state: Mutex<State>,
}

struct State {
    tokens: Vec<([u8; 32], Role)>,
    rate: f64,
    /// One bucket for each token, and the last for loopback.
    buckets: Vec<Bucket>,
    sources: HashMap<IpAddr, Failures>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    since: Instant,
    blocked_until: Option<Instant>,
}

/// Passes `request` on, or answers it.
pub async fn admit(door: Arc<Door>, mut request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS && dialect::claims(request.uri().path()) {
        return dialect::datarhei::preflight(request.headers());
    }
    match door.check(Instant::now(), &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => refuse(request.uri().path(), problem),
    }
}

impl Door {
    /// The door of `settings`.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant) -> Self {
        let rate = f64::from(settings.rate.max(1));
        let tokens = hashed(settings);
        let buckets = vec![Bucket { left: rate * BURST, at: now }; tokens.len() + 1];
        Self {
            bound_to_loopback: settings.listen.ip().to_canonical().is_loopback(),
            state: Mutex::new(State { tokens, rate, buckets, sources: HashMap::new() }),
        }
    }

    /// Takes other tokens and another rate. What a token that stays has spent, and who is blocked, is kept.
    pub fn configure(&self, settings: &Settings, now: Instant) {
        let mut state = self.state();
        let tokens = hashed(settings);
        state.rate = f64::from(settings.rate.max(1));
        let full = Bucket { left: state.rate * BURST, at: now };
        let of_loopback = state.buckets.last().copied().unwrap_or(full);
        let bucket_of = |token: &[u8; 32]| {
            let place = state.tokens.iter().position(|(known, _)| known == token);
            place.and_then(|index| state.buckets.get(index)).copied().unwrap_or(full)
        };
        let buckets = tokens.iter().map(|(token, _)| bucket_of(token)).chain([of_loopback]).collect();
        state.tokens = tokens;
        state.buckets = buckets;
    }

    /// True without any token: loopback needs none then.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().tokens.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks, if they may.
    ///
    /// # Errors
    /// 400, 401, 403, 421 or 429.
    pub fn check(&self, now: Instant, request: &Request) -> Result<Caller, Problem> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
        let host = host(request)?;
        if self.bound_to_loopback && !is_loopback_name(host) {
            let detail = "this server answers to localhost, 127.0.0.1 and [::1]";
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail).about("Host"));
        }
        let foreign = is_foreign(request.headers(), host);
        // A dialect's client may be a page of another origin: it must bring a token, which no page has by accident.
        if foreign && !request.method().is_safe() && !dialect::claims(request.uri().path()) {
            return Err(Problem::forbidden("a page of another origin may not do this").about("Origin"));
        }
        let source = source(peer);
        if let Some(left) = self.blocked_for(now, source) {
            return Err(Problem::too_many("too many refused tokens came from this address", left));
        }
        let local = peer.is_some_and(|peer| peer.is_loopback())
            && is_loopback_name(host)
            && !foreign
            && !is_forwarded(request.headers());
        let required = required(request.method(), request.uri().path(), request.uri().query());
        let tokens = self.state().tokens.len();
        let trusted_here = tokens == 0 || request.uri().path() == "/metrics";
        let offers = request.headers().contains_key(header::AUTHORIZATION);
        let found = bearer(request.headers()).and_then(|token| self.find(token));
        let (bucket, role) = match (found, required) {
            (Some((index, role)), _) => (index, Some(role)),
            (None, None) => return Ok(Caller { role: None }),
            // Whoever brings a token means it: one that is not known is refused, wherever it comes from.
            (None, Some(_)) if local && trusted_here && !offers => {
                let role = if tokens == 0 { Role::Admin } else { Role::Read };
                (tokens, Some(role))
            }
            (None, Some(_)) => {
                // Absence is not a guess; only what was offered and refused counts towards a block.
                if offers {
                    self.count_failure(now, source);
                }
                return Err(Problem::unauthorized("a bearer token is required").about("Authorization"));
            }
        };
        if let Some(wait) = self.spend(now, bucket) {
            return Err(Problem::too_many("too many requests", wait));
        }
        match required {
            Some(required) if role < Some(required) => {
                let detail = format!("this needs a token with the role {}", required.as_str());
                Err(Problem::forbidden(detail).about("Authorization"))
            }
            _ => Ok(Caller { role }),
        }
    }

    /// Compares hashes, all of them, in a time that depends on neither the token nor the place of its match.
    fn find(&self, offered: &str) -> Option<(usize, Role)> {
        let offered = hash(offered);
        let mut found = None;
        for (index, (known, role)) in self.state().tokens.iter().enumerate() {
            let same: Choice = known.ct_eq(&offered);
            if bool::from(same) {
                found = Some((index, *role));
            }
        }
        found
    }

    fn spend(&self, now: Instant, index: usize) -> Option<u64> {
        let mut state = self.state();
        let rate = state.rate;
        let bucket = state.buckets.get_mut(index)?;
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
        bucket.left = (bucket.left + gained).min(rate * BURST);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Some(1);
        }
        bucket.left -= 1.0;
        None
    }

    fn blocked_for(&self, now: Instant, source: IpAddr) -> Option<u64> {
        let state = self.state();
        let until = state.sources.get(&source)?.blocked_until?;
        let left = until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        Some(left.as_secs().max(1))
    }

    fn count_failure(&self, now: Instant, source: IpAddr) {
        let mut state = self.state();
        let sources = &mut state.sources;
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            sources.retain(|_, failures| {
                failures.blocked_until.is_some_and(|until| until > now)
                    || now.saturating_duration_since(failures.since) < FAILURES_WITHIN
            });
            if sources.len() >= SOURCES_MAX
                && let Some(first) = sources.iter().min_by_key(|(_, failures)| failures.since).map(|(ip, _)| *ip)
            {
                sources.remove(&first);
            }
        }
        let fresh = Failures { count: 0, since: now, blocked_until: None };
        let failures = sources.entry(source).or_insert(fresh);
        if now.saturating_duration_since(failures.since) >= FAILURES_WITHIN {
            *failures = fresh;
        }
        failures.count += 1;
        if failures.count >= FAILURES_MAX {
            *failures = Failures { blocked_until: now.checked_add(BLOCKED_FOR), ..fresh };
        }
    }
}

/// What a path asks for; paths that do not exist included, so that a stranger cannot tell them apart.
fn required(method: &Method, path: &str, query: Option<&str>) -> Option<Role> {
    match path {
        "/healthz" => None,
        "/readyz" if query.is_none_or(str::is_empty) => None,
        _ if method.is_safe() => Some(Role::Read),
        "/v1/drain" | "/v1/reload" => Some(Role::Admin),
        _ => Some(Role::Control),
    }
}

fn hashed(settings: &Settings) -> Vec<([u8; 32], Role)> {
    settings.tokens.iter().map(|token| (hash(token.token.reveal()), token.role)).collect()
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The token of the one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The host that the request is for, without its port.
fn host(request: &Request) -> Result<&str, Problem> {
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "invalid-host", detail).about("Host");
    let mut all = request.headers().get_all(header::HOST).iter();
    let named = match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().map_err(|_| bad("the host is not a name"))?,
        (Some(_), Some(_)) => return Err(bad("there are two Host headers")),
        (None, _) => "",
    };
    // A request for a whole URI names its host there (RFC 9112 §3.2.2).
    match request.uri().authority() {
        Some(authority) => Ok(authority.as_str()),
        None if named.is_empty() => Err(bad("the Host header is missing")),
        None => Ok(named),
    }
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((inside, "")) => inside,
            Some((inside, port)) if is_port(port.strip_prefix(':')) => inside,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if is_port(Some(port)) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn is_port(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.parse::<u16>().is_ok())
}

/// True when a browser says that a page of another origin caused the request.
fn is_foreign(headers: &HeaderMap, host: &str) -> bool {
    let cross =
        headers.get_all("sec-fetch-site").iter().any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let foreign_origin = headers.get_all(header::ORIGIN).iter().any(|origin| {
        let authority = origin.to_str().ok().and_then(|text| text.split_once("://")).map(|(_, authority)| authority);
        !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    });
    cross || foreign_origin
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name))
}

/// One source: an IPv4 address, or an IPv6 /64.
fn source(peer: Option<IpAddr>) -> IpAddr {
    match peer {
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        Some(address) => address,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::settings::Token;
    use crate::stdx::units::Secret;
    use axum::body::Body;

    const READ: &str = "read-0123456789abcdefghij";
    const CONTROL: &str = "ctrl-0123456789abcdefghij";
    const LOCAL: &str = "127.0.0.1:4711";
    const REMOTE: &str = "198.51.100.4:4711";

    fn with_tokens() -> Settings {
        let token = |text: &str, role| Token { token: Secret::new(text.into()), role };
        Settings { tokens: vec![token(READ, Role::Read), token(CONTROL, Role::Control)], ..Settings::default() }
    }

    fn request(method: &str, path: &str, peer: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:8081");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        request
    }

    fn status(settings: &Settings, request: &Request) -> u16 {
        let now = Instant::now();
        Door::new(settings, now).check(now, request).map_or_else(|problem| problem.status.as_u16(), |_| 200)
    }

    #[test]
    fn ap_01_only_the_whole_right_token_in_the_header_passes() {
        let settings = with_tokens();
        let get = |headers: &[(&str, &str)]| status(&settings, &request("GET", "/v1/sessions", LOCAL, headers));
        assert_eq!(get(&[]), 401);
        assert_eq!(get(&[("authorization", "Bearer wrong")]), 401);
        assert_eq!(get(&[("authorization", &format!("Bearer {}", &READ[..READ.len() - 1]))]), 401);
        assert_eq!(get(&[("authorization", &format!("Bearer {READ}x"))]), 401);
        assert_eq!(get(&[("authorization", &format!("Basic {READ}"))]), 401);
        assert_eq!(get(&[("authorization", "Bearer ")]), 401);
        let both = format!("Bearer {READ}");
        assert_eq!(get(&[("authorization", &both), ("authorization", &both)]), 401);
        assert_eq!(get(&[("authorization", &both)]), 200);
        let path = format!("/v1/sessions?token={READ}");
        assert_eq!(status(&settings, &request("GET", &path, LOCAL, &[])), 401);
    }

    #[test]
    fn ap_03_a_read_token_may_not_end_sessions() {
        let settings = with_tokens();
        let (read, control) = (format!("Bearer {READ}"), format!("Bearer {CONTROL}"));
        let send =
            |method, path, token: &str| status(&settings, &request(method, path, LOCAL, &[("authorization", token)]));
        assert_eq!(send("DELETE", "/v1/sessions/x", &read), 403);
        assert_eq!(send("POST", "/v1/sessions/terminate", &read), 403);
        assert_eq!(send("DELETE", "/v1/sessions/x", &control), 200);
        assert_eq!(send("POST", "/v1/drain", &control), 403);
        assert_eq!(send("POST", "/v1/reload", &control), 403);
        assert_eq!(send("GET", "/v1/sessions", &control), 200);
    }

    #[test]
    fn without_tokens_only_loopback_passes() {
        let settings = Settings::default();
        assert_eq!(status(&settings, &request("GET", "/v1/sessions", LOCAL, &[])), 200);
        assert_eq!(status(&settings, &request("GET", "/v1/sessions", "[::ffff:127.0.0.1]:1", &[])), 200);
        assert_eq!(status(&settings, &request("GET", "/v1/sessions", REMOTE, &[])), 401);
        let unknown = [("authorization", "Bearer wrong")];
        assert_eq!(status(&settings, &request("GET", "/v1/sessions", LOCAL, &unknown)), 401);
        assert_eq!(status(&settings, &request("GET", "/healthz", REMOTE, &[])), 200);
        assert_eq!(status(&settings, &request("GET", "/readyz", REMOTE, &[])), 200);
        assert_eq!(status(&settings, &request("GET", "/readyz?verbose", REMOTE, &[])), 401);
        // What a proxy on this machine passes on is not this machine's.
        let forwarded = [("x-forwarded-for", "198.51.100.4")];
        assert_eq!(status(&settings, &request("GET", "/v1/sessions", LOCAL, &forwarded)), 401);
    }

    #[test]
    fn metrics_are_for_loopback_or_a_token() {
        let settings = with_tokens();
        assert_eq!(status(&settings, &request("GET", "/metrics", LOCAL, &[])), 200);
        assert_eq!(status(&settings, &request("GET", "/metrics", REMOTE, &[])), 401);
        assert_eq!(
            status(&settings, &request("GET", "/metrics", REMOTE, &[("authorization", &format!("Bearer {READ}"))])),
            200
        );
    }

    #[test]
    fn ap_04_foreign_hosts_and_foreign_pages_are_refused() {
        let settings = Settings::default();
        let get = |host| status(&settings, &request("GET", "/v1/sessions", LOCAL, &[("host", host)]));
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8081"] {
            assert_eq!(get(host), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil", "localhost:evil", "[::1]x", "::2"] {
            assert_eq!(get(host), 421, "{host}");
        }
        let delete = |headers: &[(&str, &str)]| status(&settings, &request("DELETE", "/v1/sessions/x", LOCAL, headers));
        assert_eq!(delete(&[]), 200);
        assert_eq!(delete(&[("origin", "http://localhost:8081")]), 200);
        assert_eq!(delete(&[("sec-fetch-site", "same-origin")]), 200);
        assert_eq!(delete(&[("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(delete(&[("origin", "http://localhost:3000")]), 403);
        assert_eq!(delete(&[("origin", "https://evil.example")]), 403);
        assert_eq!(delete(&[("origin", "null")]), 403);
        // Reading, a foreign page is nobody rather than this machine.
        let read = |headers: &[(&str, &str)]| status(&settings, &request("GET", "/api/v3/session", LOCAL, headers));
        assert_eq!(read(&[("origin", "https://evil.example")]), 401);
        assert_eq!(read(&[]), 200);
    }

    #[test]
    fn ap_13_a_source_of_wrong_tokens_is_blocked() {
        let start = Instant::now();
        let door = Door::new(&with_tokens(), start);
        let wrong = request("GET", "/v1/sessions", REMOTE, &[("authorization", "Bearer wrong")]);
        let right = format!("Bearer {READ}");
        let right = |peer| request("GET", "/v1/sessions", peer, &[("authorization", &right)]);
        let mut answers = [0_u32; 2];
        for n in 0..1_000 {
            let now = start + Duration::from_millis(n);
            match door.check(now, &wrong).unwrap_err().status.as_u16() {
                401 => answers[0] += 1,
                429 => answers[1] += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!(answers, [FAILURES_MAX, 1_000 - FAILURES_MAX]);
        let after = start + Duration::from_secs(1);
        let blocked = door.check(after, &right(REMOTE)).unwrap_err();
        assert_eq!(blocked.status.as_u16(), 429);
        assert!(blocked.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)));
        assert!(door.check(after, &right("198.51.100.5:1")).is_ok());
        assert!(door.check(start + Duration::from_secs(62), &right(REMOTE)).is_ok());
    }

    #[test]
    fn the_rate_is_per_token_with_a_burst_of_four_seconds() {
        let start = Instant::now();
        let door = Door::new(&with_tokens(), start);
        let of = |token: &str| request("GET", "/v1/sessions", LOCAL, &[("authorization", &format!("Bearer {token}"))]);
        let passed = |now, token| (0..1_000).filter(|_| door.check(now, &of(token)).is_ok()).count();
        assert_eq!(passed(start, READ), 200);
        assert_eq!(passed(start, CONTROL), 200);
        assert_eq!(passed(start + Duration::from_secs(1), READ), 50);
    }

    #[test]
    fn a_token_that_is_gone_is_refused_and_one_that_stays_keeps_its_account() {
        let start = Instant::now();
        let door = Door::new(&with_tokens(), start);
        let of = |token: &str| request("GET", "/v1/sessions", LOCAL, &[("authorization", &format!("Bearer {token}"))]);
        let status =
            |token: &str| door.check(start, &of(token)).map_or_else(|problem| problem.status.as_u16(), |_| 200);
        for _ in 0..200 {
            assert_eq!(status(CONTROL), 200);
        }
        let mut settings = with_tokens();
        settings.tokens.remove(0);
        settings.tokens.push(Token { token: Secret::new("new-0123456789abcdefghijk".into()), role: Role::Admin });
        door.configure(&settings, start);
        assert_eq!((status(READ), status("new-0123456789abcdefghijk")), (401, 200));
        assert_eq!(status(CONTROL), 429, "a reload is no way to more requests");
        assert!(!door.is_open());
        door.configure(&Settings { tokens: Vec::new(), ..settings }, start);
        assert!(door.is_open());
        assert!(door.check(start, &request("GET", "/v1/sessions", LOCAL, &[])).is_ok());
        assert!(door.check(start, &request("GET", "/v1/sessions", REMOTE, &[])).is_err());
    }

    #[test]
    fn remembered_sources_are_bounded() {
        let start = Instant::now();
        let door = Door::new(&with_tokens(), start);
        for n in 0..10_000_u32 {
            door.count_failure(start, IpAddr::V4(n.into()));
        }
        assert_eq!(door.state.lock().unwrap().sources.len(), SOURCES_MAX);
    }
}
