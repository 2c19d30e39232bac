//! Ranges and contradictions: what a configuration must not say although every value is well-formed.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;

use crate::admission::{self, settings::Access};
use crate::config::log::parse_level;
use crate::config::{Config, Problem, Severity};
use crate::hook;
use crate::names::Kind;
use crate::stdx::settings::{SECRET_CHARS_MIN, SettingsError, is_long_enough};

/// How the numbers of a [`Rule`] are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain count.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Time,
}

/// The permitted range of one key.
pub struct Rule {
    /// The key.
    pub key: &'static str,
    /// Its number in a configuration.
    pub value: fn(&Config) -> u64,
    /// How it is written.
    pub unit: Unit,
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
    /// True when 0 is permitted beside the range and means something else than a small number.
    pub or_zero: bool,
    /// Why the ends are where they are.
    pub why: &'static str,
}

/// The range as the guide and the messages write it: `1…4096`, `10ms…10s`, `0 or 1s…1h`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.or_zero {
            f.write_str("0 or ")?;
        }
        write!(f, "{}…{}", show(self.unit, self.min), show(self.unit, self.max))
    }
}

impl Rule {
    fn check(&self, config: &Config) -> Option<Problem> {
        let value = (self.value)(config);
        let permitted = (self.min..=self.max).contains(&value) || (self.or_zero && value == 0);
        (!permitted).then(|| {
            let shown = show(self.unit, value);
            Problem::error(self.key, format!("{shown} is outside the permitted {self}: {}", self.why))
        })
    }
}

/// A number with the largest unit that divides it.
#[must_use]
pub fn show(unit: Unit, value: u64) -> String {
    let units: &[(u64, &str)] = match unit {
        Unit::Count => &[],
        Unit::Bytes => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")],
        Unit::Time => &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")],
    };
    let found = units.iter().find(|(size, _)| value != 0 && value.is_multiple_of(*size));
    found.map_or_else(|| value.to_string(), |(size, name)| format!("{}{name}", value / size))
}

/// Every numeric key has its line here; the guide is tested against this table.
pub const RULES: &[Rule] = &[
    count("shard.count", |c| c.shard.count as u64, 0, 256, "0 is one for each core; more than 256 is a typing error"),
    count(
        "shard.backlog",
        |c| c.shard.backlog.into(),
        1,
        65_535,
        "the kernel cuts it to net.core.somaxconn in any case",
    ),
    time("shard.latency_max", |c| ms(c.shard.latency_max), 0, 2_000, "players feel more than two seconds"),
    time("shard.latency_max_busy", |c| ms(c.shard.latency_max_busy), 0, 2_000, "players feel more than two seconds"),
    count("shard.merge_factor", |c| c.shard.merge_factor.into(), 0, 1_000, "latency_max is reached long before"),
    time(
        "shard.report_every",
        |c| ms(c.shard.report_every),
        10,
        10_000,
        "faster costs the shard, slower makes rates useless",
    ),
    off(time(
        "sessions.publish_lead_max",
        |c| ms(c.sessions.publish_lead_max),
        100,
        600_000,
        "less stops a lively encoder",
    )),
    time("sessions.play_wait", |c| ms(c.sessions.play_wait), 0, 3_600_000, "a player that waits holds a connection"),
    time("sessions.no_progress", |c| ms(c.sessions.no_progress), 1_000, 600_000, "mobile networks pause for a second"),
    count("shard.connections_max", |c| c.shard.connections_max as u64, 0, 10_000_000, "0 is 80% of the descriptors"),
    count("shard.connections_per_ip", |c| c.shard.connections_per_ip as u64, 0, 10_000_000, "0 is off"),
    count("shard.unauthenticated_per_ip", |c| c.shard.unauthenticated_per_ip as u64, 0, 10_000_000, "0 is off"),
    count(
        "shard.unauthenticated_percent",
        |c| c.shard.unauthenticated_percent.into(),
        1,
        100,
        "it is a share, and without any nobody could come in",
    ),
    off(count(
        "shard.accept_rate_per_ip",
        |c| c.shard.accept_rate_per_ip.into(),
        1,
        1_000_000,
        "no source opens more than a million a second",
    )),
    off(count(
        "shard.accept_rate",
        |c| c.shard.accept_rate.into(),
        10,
        1_000_000,
        "less would keep an idle server busy",
    )),
    off(count(
        "shard.auth_failures_per_ip",
        |c| c.shard.auth_failures_per_ip.into(),
        1,
        1_000_000,
        "whoever types a password gets it wrong now and then",
    )),
    count(
        "shard.source_table",
        |c| c.shard.source_table as u64,
        1_024,
        100_000_000,
        "less forgets sources while they attack; each takes about 50 bytes",
    ),
    off(bytes(
        "shard.memory_max",
        |c| c.shard.memory_max,
        64 << 20,
        1 << 50,
        "an idle server takes some tens of megabytes",
    )),
    off(time(
        "shard.loop_lag_max",
        |c| ms(c.shard.loop_lag_max),
        20,
        60_000,
        "a tick is 20 ms, and nobody waits for a minute",
    )),
    count("rtmp.glitches_max", |c| c.rtmp.glitches_max.into(), 1, 10_000, "an honest encoder makes a handful"),
    bytes(
        "sessions.play_started_bytes",
        |c| c.sessions.play_started_bytes,
        1,
        1 << 30,
        "0 would start before media flows",
    ),
    time(
        "sessions.first_keyframe",
        |c| ms(c.sessions.first_keyframe),
        1_000,
        600_000,
        "encoders send one every 2 to 10 s",
    ),
    time("sessions.stall_after", |c| ms(c.sessions.stall_after), 100, 600_000, "less calls every hiccup a stall"),
    off(time("sessions.update_every", |c| ms(c.sessions.update_every), 1_000, 86_400_000, "less floods the events")),
    count(
        "shard.ring_depth",
        |c| c.shard.ring_depth as u64,
        32,
        4_096,
        "the runtime takes at most 4,096 and stalls below 32",
    ),
    time("shard.drain_timeout", |c| ms(c.shard.drain_timeout), 0, 86_400_000, "0 says all goodbyes at once"),
    time("rtmp.handshake_timeout", |c| ms(c.rtmp.handshake_timeout), 100, 60_000, "far peers need round trips"),
    time("rtmp.command_timeout", |c| ms(c.rtmp.command_timeout), 100, 600_000, "encoders take a moment to publish"),
    time("rtmp.first_media_timeout", |c| ms(c.rtmp.first_media_timeout), 1_000, 600_000, "encoders warm up"),
    time("rtmp.media_timeout", |c| ms(c.rtmp.media_timeout), 1_000, 3_600_000, "less closes on a network hiccup"),
    time("rtmp.message_timeout", |c| ms(c.rtmp.message_timeout), 1_000, 600_000, "a keyframe on a slow link is slow"),
    count(
        "rtmp.out_chunk_size",
        |c| c.rtmp.out_chunk_size.into(),
        128,
        16_777_215,
        "128 is the protocol's start, a message has at most 16,777,215 bytes",
    ),
    count(
        "rtmp.chunk_streams",
        |c| c.rtmp.chunk_streams as u64,
        4,
        65_536,
        "encoders use four to eight, and a connection holds state for each",
    ),
    bytes("rtmp.max_command", |c| c.rtmp.max_command, 4 << 10, 16 << 20, "`connect` of known encoders is below 4 KiB"),
    bytes("rtmp.max_data", |c| c.rtmp.max_data, 4 << 10, 16 << 20, "onMetaData of known encoders is below 4 KiB"),
    bytes("rtmp.max_audio", |c| c.rtmp.max_audio, 4 << 10, 16 << 20, "the message length field ends at 16 MiB"),
    bytes("rtmp.max_video", |c| c.rtmp.max_video, 64 << 10, 16 << 20, "the message length field ends at 16 MiB"),
    bytes(
        "rtmp.partial_bytes_unauthorized",
        |c| c.rtmp.partial_bytes_unauthorized,
        4 << 10,
        16 << 20,
        "any stranger may make a connection hold so much",
    ),
    bytes("rtmp.partial_bytes", |c| c.rtmp.partial_bytes, 64 << 10, 256 << 20, "one publisher may hold so much"),
    count("rtmp.command_rate", |c| c.rtmp.command_rate.into(), 1, 10_000, "publishing alone takes six commands"),
    count("rtmp.streams_per_connection", |c| c.rtmp.streams_per_connection as u64, 1, 256, "one at least is needed"),
    bytes("rtmp.verdict_buffer", |c| c.rtmp.verdict_buffer, 0, 64 << 20, "held for each publisher that waits"),
    bytes("rtmp.window_ack_floor", |c| c.rtmp.window_ack_floor, 1 << 10, 1 << 30, "every window is one message back"),
    bytes("rtmp.window_ack_size", |c| c.rtmp.window_ack_size, 64 << 10, 1 << 30, "peers acknowledge once a window"),
    bytes("stream.gop_bytes", |c| c.stream.gop_bytes, 0, 1 << 30, "held for each stream; 0 keeps no cache"),
    time("stream.gop_duration", |c| ms(c.stream.gop_duration), 0, 600_000, "0 keeps no cache"),
    bytes("stream.queue_bytes", |c| c.stream.queue_bytes, 64 << 10, 1 << 30, "held for each stream on each shard"),
    time("stream.queue_time", |c| ms(c.stream.queue_time), 100, 600_000, "less drops on every hiccup"),
    count("stream.overflows_max", |c| c.stream.overflows_max.into(), 1, 1_000_000, "0 would close at the first lag"),
    time("stream.overflow_window", |c| ms(c.stream.overflow_window), 1_000, 86_400_000, "overflows are seconds apart"),
    time("stream.resume_window", |c| ms(c.stream.resume_window), 0, 3_600_000, "0 ends the stream with its publisher"),
    count("stream.relay_frames", |c| c.stream.relay_frames as u64, 16, 1_000_000, "a burst of audio alone is sixteen"),
    bytes("stream.relay_bytes", |c| c.stream.relay_bytes, 1 << 20, 1 << 30, "one keyframe must pass"),
    count("admission.bans_max", |c| c.admission.bans_max as u64, 1, 10_000_000, "0 would make `ban_for` a lie"),
    count("admission.waiting_max", |c| c.admission.waiting_max as u64, 1, 1_000_000, "each takes about 1 KiB"),
    time(
        "admission.answer_timeout",
        |c| ms(c.admission.answer_timeout),
        100,
        60_000,
        "a peer waits so long at most, and most give up within a minute",
    ),
    time("admission.evict_timeout", |c| ms(c.admission.evict_timeout), 100, 60_000, "a newcomer waits so long at most"),
    count("admission.cache_entries", |c| c.admission.cache_entries as u64, 0, 10_000_000, "each takes about 500 bytes"),
    sessions("admission.limits.sessions_per_user", |c| c.admission.limits.sessions_per_user.into()),
    sessions("admission.limits.sessions_per_token", |c| c.admission.limits.sessions_per_token.into()),
    sessions("admission.limits.sessions_per_address", |c| c.admission.limits.sessions_per_address.into()),
    sessions("admission.limits.sessions_per_stream", |c| c.admission.limits.sessions_per_stream.into()),
    sessions("admission.limits.sessions_per_app", |c| c.admission.limits.sessions_per_app.into()),
    sessions("admission.limits.sessions_per_server", |c| c.admission.limits.sessions_per_server.into()),
    bps("admission.limits.egress_bps_per_stream", |c| c.admission.limits.egress_bps_per_stream),
    bps("admission.limits.egress_bps_per_app", |c| c.admission.limits.egress_bps_per_app),
    bps("admission.limits.egress_bps_per_server", |c| c.admission.limits.egress_bps_per_server),
    bps("admission.limits.egress_bps_expected", |c| c.admission.limits.egress_bps_expected),
    bps("admission.limits.publish_bps_max", |c| c.admission.limits.publish_bps_max),
    off(time(
        "admission.limits.duration_max",
        |c| ms(c.admission.limits.duration_max),
        1_000,
        365 * 86_400_000,
        "less than a second is over before media flows",
    )),
    time("ledger.commit_every", |c| ms(c.ledger.commit_every), 1, 1_000, "whoever is told waits so long"),
    count("ledger.commit_records", |c| c.ledger.commit_records as u64, 1, 100_000, "a transaction holds up the next"),
    bytes(
        "ledger.queue_bytes",
        |c| c.ledger.queue_bytes,
        1 << 20,
        16 << 30,
        "less than 1 MiB loses records in a burst",
    ),
    time(
        "ledger.checkpoint_every",
        |c| ms(c.ledger.checkpoint_every),
        1_000,
        3_600_000,
        "more often writes every session every second",
    ),
    count("ledger.retain_days", |c| c.ledger.retain_days.into(), 0, 36_500, "0 keeps all"),
    off(bytes("ledger.retain_bytes", |c| c.ledger.retain_bytes, 16 << 20, 1 << 50, "one day must fit")),
    bytes("ledger.spool_bytes", |c| c.ledger.spool_bytes, 1 << 20, 1 << 40, "less loses what a short failure holds up"),
    count("control.events_kept", |c| c.control.events_kept as u64, 256, 16_777_216, "each takes about 200 bytes"),
    count("control.finished_kept", |c| c.control.finished_kept as u64, 0, 10_000_000, "each takes about 1 KiB"),
    count(
        "control.history_keys_max",
        |c| c.control.history_keys_max as u64,
        1,
        10_000_000,
        "each takes about 300 bytes",
    ),
    time("control.order_timeout", |c| ms(c.control.order_timeout), 100, 60_000, "a call to the API waits so long"),
    count("api.rate", |c| c.api.rate.into(), 1, 1_000_000, "0 would answer nobody"),
    count("api.datarhei.max_sessions", |c| c.api.datarhei.max_sessions, 0, i64::MAX as u64, "it is only shown"),
    count("api.datarhei.max_bitrate_mbit", |c| c.api.datarhei.max_bitrate_mbit, 0, i64::MAX as u64, "it is only shown"),
    time("hook.connect_timeout", |c| ms(c.hook.connect_timeout), 10, 60_000, "TLS across an ocean takes half a second"),
    time("hook.decide_timeout", |c| ms(c.hook.decide_timeout), 10, 60_000, "a newcomer waits so long"),
    time("hook.event_timeout", |c| ms(c.hook.event_timeout), 10, 600_000, "a receiver that takes longer is told again"),
    bytes("hook.response_headers", |c| c.hook.response_headers, 1 << 10, 256 << 10, "proxies add some"),
    bytes("hook.response_body", |c| c.hook.response_body, 1 << 10, 16 << 20, "each request under way may hold as much"),
    count("hook.concurrency", |c| c.hook.concurrency as u64, 1, 4_096, "each takes a connection"),
    count("hook.queue", |c| c.hook.queue as u64, 1, 1_000_000, "each takes about 1 KiB"),
    count("hook.tell_rate", |c| c.hook.tell_rate.into(), 1, 1_000_000, "0 would tell nobody"),
    count("log.lines_max", |c| c.log.lines_max as u64, 16, 1_048_576, "each line may take up to 8 KiB"),
];

/// Everything that is wrong or doubtful.
#[must_use]
pub fn check(config: &Config) -> Vec<Problem> {
    let mut problems = values(config);
    listeners(config, &mut problems);
    // What the API itself refuses to serve and nothing above has said yet.
    let is_told = problems.iter().any(|problem| problem.severity == Severity::Error && problem.key.starts_with("api."));
    if let (false, Err(error)) = (is_told, config.api.check()) {
        problems.push(Problem::error(error.field, error.message));
    }
    if config.ledger.directory.is_empty() && config.hook.tell.iter().any(|tell| tell.enabled) {
        let message =
            "needs a ledger, or what is still to be told would be lost with the process; set ledger.directory";
        problems.push(Problem::error("hook.tell", message));
    }
    contradictions(config, &mut problems);
    problems
}

/// What is wrong with single values, whatever others say: true also of what can be read of a file with mistakes.
#[must_use]
pub fn values(config: &Config) -> Vec<Problem> {
    let mut problems: Vec<Problem> = RULES.iter().filter_map(|rule| rule.check(config)).collect();
    tokens(config, &mut problems);
    // What the rooms know of their own settings beyond ranges.
    if let Err(error) = config.admission.check() {
        let told = problems.len();
        admission_rules(&config.admission, &mut problems);
        if problems.len() == told {
            problems.push(Problem::error(error.field, error.message));
        }
    }
    if let Err(error) = config.hook.check() {
        let told = problems.len();
        back_ends(&config.hook, &mut problems);
        if problems.len() == told {
            problems.push(Problem::error(error.field, error.message));
        }
    }
    if let Err(message) = parse_level(&config.log.level) {
        problems.push(Problem::error("log.level", message));
    }
    problems
}

/// What is wrong with each rule by itself, and so where it stands and not only with the first.
fn admission_rules(settings: &admission::Settings, problems: &mut Vec<Problem>) {
    use admission::Settings;
    let mut check = |list: &str, index: usize, alone: Settings| {
        let list = format!("admission.{list}");
        problems.extend(alone.check().err().map(|error| of_element(error, &list, &list, index)));
    };
    for (index, rule) in settings.rules.iter().enumerate() {
        check("rules", index, Settings { rules: vec![rule.clone()], ..Settings::default() });
    }
    for (index, rule) in settings.keys.iter().enumerate() {
        check("keys", index, Settings { keys: vec![rule.clone()], ..Settings::default() });
    }
    for (index, rule) in settings.signed.iter().enumerate() {
        check("signed", index, Settings { signed: vec![rule.clone()], ..Settings::default() });
    }
    for (index, rule) in settings.jwt.iter().enumerate() {
        check("jwt", index, Settings { jwt: vec![rule.clone()], ..Settings::default() });
    }
}

/// The same of each hook.
fn back_ends(settings: &hook::Settings, problems: &mut Vec<Problem>) {
    use hook::Settings;
    let mut check = |list: &str, index: usize, alone: Settings| {
        let list = format!("hook.{list}");
        problems.extend(alone.check().err().map(|error| of_element(error, &format!("{list}[0]"), &list, index)));
    };
    for (index, ask) in settings.ask.iter().enumerate() {
        check("ask", index, Settings { ask: vec![ask.clone()], ..Settings::default() });
    }
    for (index, tell) in settings.tell.iter().enumerate() {
        check("tell", index, Settings { tell: vec![tell.clone()], ..Settings::default() });
    }
}

/// What was said of the only element of a list, and there about `told`, as said of the `index`-th of the whole list.
fn of_element(error: SettingsError, told: &str, list: &str, index: usize) -> Problem {
    Problem::error(error.field.replacen(told, &format!("{list}[{index}]"), 1), error.message)
}

fn listeners(config: &Config, problems: &mut Vec<Problem>) {
    let mut seen: HashSet<SocketAddr> = HashSet::new();
    for at in &config.shard.rtmp_listen {
        if !seen.insert(*at) && at.port() != 0 {
            problems.push(Problem::error("shard.rtmp_listen", format!("{at} is named twice")));
        }
    }
    if config.shard.rtmp_listen.is_empty() {
        problems.push(Problem::warning("shard.rtmp_listen", "the list is empty, so nobody can publish or play"));
    }
    let api = config.api.listen;
    if let Some(at) = config.shard.rtmp_listen.iter().find(|at| overlap(**at, api)) {
        problems.push(Problem::error("api.listen", format!("{api} and {at} of shard.rtmp_listen are the same port")));
    }
    if !api.ip().is_loopback() {
        if config.api.tokens.is_empty() {
            problems.push(Problem::error(
                "api.listen",
                format!("{api} can be reached from other machines; that needs at least one token in [[api.tokens]]"),
            ));
        }
        problems.push(Problem::warning(
            "api.listen",
            format!("{api} can be reached from other machines and is not encrypted: put a TLS proxy before it"),
        ));
    }
}

/// True when two listeners cannot both be bound.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}

fn tokens(config: &Config, problems: &mut Vec<Problem>) {
    let mut seen = HashSet::new();
    for (number, token) in (1..).zip(&config.api.tokens) {
        let key = format!("api.tokens[{}].token", number - 1);
        let text = token.token.reveal();
        // AP-02 and the security defaults.
        if !is_long_enough(text) {
            problems.push(Problem::error(
                key.clone(),
                format!(
                    "token {number} has {} characters and needs at least {SECRET_CHARS_MIN} (128 bits of base64), as \
                     `openssl rand -base64 24` makes them",
                    text.chars().count()
                ),
            ));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = format!("token {number} holds a blank or a character that no HTTP header carries");
            problems.push(Problem::error(key.clone(), message));
        }
        if !seen.insert(text) {
            problems.push(Problem::error(key, format!("token {number} was named before")));
        }
    }
}

/// CF-08: settings that contradict each other or can never take effect; each message names both.
fn contradictions(config: &Config, problems: &mut Vec<Problem>) {
    let Config { shard, rtmp, stream, admission, .. } = config;
    let mut warn = |key: &str, message: String| problems.push(Problem::warning(key, message));

    if config.hook.connect_timeout > config.hook.decide_timeout {
        let message = "is longer than hook.decide_timeout, so it is never reached when a back end is asked";
        warn("hook.connect_timeout", message.into());
    }
    if !config.hook.ask.is_empty() && admission.answer_timeout <= config.hook.decide_timeout {
        let message = "is not longer than hook.decide_timeout, so questions are given up before their answers come";
        warn("admission.answer_timeout", message.into());
    }

    if admission.publish == Access::Deny && !config.is_decided(Kind::Publish) {
        warn(
            "admission.publish",
            "is `deny` and no rule or hook allows anybody, so nobody may publish; write `publish = \"open\"` or \
             `\"loopback\"`"
                .into(),
        );
    }
    if admission.play == Access::Deny && !config.is_decided(Kind::Play) {
        warn(
            "admission.play",
            "is `deny` and no rule or hook allows anybody, so nobody may play; write `play = \"open\"`".into(),
        );
    }
    if admission.publish == Access::Open && config.is_public() {
        warn(
            "admission.publish",
            "is `open` and shard.rtmp_listen can be reached from other machines, so whoever reaches it may publish"
                .into(),
        );
    }
    // The first rule that holds everywhere and always is the last that can match.
    let last = admission.rules.iter().position(|rule| {
        rule.networks.is_empty() && rule.listener.is_none() && rule.apps.is_empty() && rule.kinds.is_empty()
    });
    if let Some(last) = last
        && last + 1 < admission.rules.len()
    {
        let (last, next) = (last + 1, last + 2);
        let message = format!("rule {last} matches everybody, so rule {next} and what follows are never reached");
        warn("admission.rules", message);
    }
    if shard.connections_per_ip > 0 && shard.unauthenticated_per_ip > shard.connections_per_ip {
        warn(
            "shard.unauthenticated_per_ip",
            format!(
                "{} is never reached, because shard.connections_per_ip is {}",
                shard.unauthenticated_per_ip, shard.connections_per_ip
            ),
        );
    }
    for (key, size) in [
        ("rtmp.max_command", rtmp.max_command),
        ("rtmp.max_data", rtmp.max_data),
        ("rtmp.max_audio", rtmp.max_audio),
        ("rtmp.max_video", rtmp.max_video),
    ] {
        if size > rtmp.partial_bytes {
            let (size, limit) = (show(Unit::Bytes, size), show(Unit::Bytes, rtmp.partial_bytes));
            warn(key, format!("{size} is never reached, because rtmp.partial_bytes is {limit}"));
        }
    }
    if rtmp.partial_bytes_unauthorized > rtmp.partial_bytes {
        warn(
            "rtmp.partial_bytes_unauthorized",
            "is larger than rtmp.partial_bytes, which holds for trusted peers".into(),
        );
    }
    if rtmp.max_video > stream.relay_bytes {
        warn("stream.relay_bytes", "is smaller than rtmp.max_video, so a large keyframe cannot cross shards".into());
    }
    for (key, wait) in [("shard.latency_max", shard.latency_max), ("shard.latency_max_busy", shard.latency_max_busy)] {
        if wait > stream.queue_time {
            warn(key, "is longer than stream.queue_time, so every player falls behind at once".into());
        }
    }
    if (stream.gop_bytes == 0) != (stream.gop_duration.is_zero()) {
        warn(
            "stream.gop_bytes",
            "and stream.gop_duration: one of them is 0 and turns the cache off, the other not".into(),
        );
    }
}

const fn rule(
    key: &'static str,
    value: fn(&Config) -> u64,
    unit: Unit,
    (min, max): (u64, u64),
    why: &'static str,
) -> Rule {
    Rule { key, value, unit, min, max, or_zero: false, why }
}

const fn count(key: &'static str, value: fn(&Config) -> u64, min: u64, max: u64, why: &'static str) -> Rule {
    rule(key, value, Unit::Count, (min, max), why)
}

/// A limit on sessions.
const fn sessions(key: &'static str, value: fn(&Config) -> u64) -> Rule {
    count(key, value, 0, 10_000_000, "0 is off")
}

/// A limit in bits a second.
const fn bps(key: &'static str, value: fn(&Config) -> u64) -> Rule {
    off(count(key, value, 1_000, 1_000_000_000_000, "these are bits a second, and no stream has fewer than a thousand"))
}

const fn bytes(key: &'static str, value: fn(&Config) -> u64, min: u64, max: u64, why: &'static str) -> Rule {
    rule(key, value, Unit::Bytes, (min, max), why)
}

const fn time(key: &'static str, value: fn(&Config) -> u64, min: u64, max: u64, why: &'static str) -> Rule {
    rule(key, value, Unit::Time, (min, max), why)
}

/// The same with 0 permitted.
const fn off(mut rule: Rule) -> Rule {
    rule.or_zero = true;
    rule
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
