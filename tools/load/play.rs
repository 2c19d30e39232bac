//! `play` and `idle`: N viewers in one thread.

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use sluicegate::proto::rtmp::client::Intent;

use crate::net::{self, ReadBuffer, wall_ns};
use crate::peer::{Media, Peer, Target, Turn};
use crate::report::{Latency, LoopGauge, Progress, Tally, round};
use crate::stamp::Stamp;

/// Silence that a viewer sees: no player's buffer hides a second.
const STALL: Duration = Duration::from_secs(1);
/// How often silence is looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(200);

/// What to do.
pub struct Options {
    /// Where.
    pub target: Target,
    /// Number of players.
    pub count: usize,
    /// Streams behind `%d`; player i plays stream i modulo this.
    pub streams: usize,
    /// Connections begun in a second.
    pub join_rate: f64,
    /// How long to wait for the last player's first frame before measuring without it.
    pub join_timeout: Duration,
    /// Time between the last join and the window.
    pub settle: Duration,
    /// The measured window.
    pub window: Duration,
    /// Every so many players one is parsed; of the others only bytes are counted.
    pub measure_every: usize,
    /// Wait for media? `idle` does not.
    pub media: bool,
    /// One entry for each player in the result.
    pub details: bool,
    /// No progress lines.
    pub quiet: bool,
}

struct Player {
    peer: Option<Peer>,
    is_measured: bool,
    /// Wall time at which the server agreed: frames due earlier come from its cache.
    joined_ns: u64,
    is_joined: bool,
    /// Next sequence number of video and audio.
    next: [Option<u32>; 2],
    last_due_ns: u64,
    last_media_at: Instant,
    stalled_since: Option<Instant>,
    frames: u64,
    /// Bytes of message bodies, without handshake, commands and chunk headers.
    media_bytes: u64,
    cached: u64,
    missing: u64,
    stalls: u64,
    /// Bytes when the window opened.
    window_rx_bytes: u64,
    /// What remains of a connection that is gone.
    gone: Option<Gone>,
    local: Option<std::net::SocketAddr>,
}

struct Gone {
    rx_bytes: u64,
    tx_bytes: u64,
    at_ns: u64,
    why: String,
}

impl Player {
    fn rx_bytes(&self) -> u64 {
        self.peer.as_ref().map(|p| p.rx_bytes).or(self.gone.as_ref().map(|g| g.rx_bytes)).unwrap_or_default()
    }

    fn tx_bytes(&self) -> u64 {
        self.peer.as_ref().map(|p| p.tx_bytes).or(self.gone.as_ref().map(|g| g.tx_bytes)).unwrap_or_default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Settling { until: Instant },
    Measuring { since: Instant, since_ns: u64 },
}

struct Sums {
    latency: Latency,
    stall_length: Latency,
    start_time: Latency,
    media_time: Latency,
    failures: Tally,
    closed: u64,
    joined: usize,
    window_frames: u64,
    window_missing: u64,
    window_stalls: u64,
    wrong_bytes: u64,
}

/// Runs the joins, the settling and the window; says what was seen.
pub fn run(options: &Options) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(4_096);
    let mut buffer = ReadBuffer::new();
    let mut players: Vec<Player> = Vec::with_capacity(options.count);
    let mut sums = Sums {
        latency: Latency::new(),
        stall_length: Latency::new(),
        start_time: Latency::new(),
        media_time: Latency::new(),
        failures: Tally::default(),
        closed: 0,
        joined: 0,
        window_frames: 0,
        window_missing: 0,
        window_stalls: 0,
        wrong_bytes: 0,
    };
    let mut gauge = LoopGauge::start();
    let mut progress = Progress::new(options.quiet);
    let began = Instant::now();
    let mut phase = Phase::Joining;
    let mut next_sweep = began;
    let mut bytes_before = (began, 0);
    while !net::is_stopped() {
        let timeout = if players.len() < options.count {
            let next_open = Duration::from_secs_f64(players.len() as f64 / options.join_rate);
            next_open.saturating_sub(began.elapsed()).min(Duration::from_millis(50))
        } else {
            Duration::from_millis(50)
        };
        if let Err(error) = poll.poll(&mut events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let now = Instant::now();
        gauge.on_turn(now);
        let due = 1 + (began.elapsed().as_secs_f64() * options.join_rate) as usize;
        while players.len() < due.min(options.count) {
            players.push(open(poll.registry(), options, players.len(), now)?);
        }
        let in_window = matches!(phase, Phase::Measuring { .. });
        for event in &events {
            if let Some(player) = players.get_mut(event.token().0) {
                on_event(player, poll.registry(), event, &mut buffer, now, in_window, options, &mut sums);
            }
        }
        if now >= next_sweep {
            next_sweep = now + SWEEP_EVERY;
            if in_window && options.media {
                sweep(&mut players, now, &mut sums);
            }
            match phase {
                Phase::Joining => {
                    let everybody = players.len() == options.count;
                    let last_join = Duration::from_secs_f64(options.count as f64 / options.join_rate);
                    let settled = sums.joined as u64 + sums.failures.total() + sums.closed >= options.count as u64;
                    if everybody && (settled || began.elapsed() > last_join + options.join_timeout) {
                        phase = Phase::Settling { until: now + options.settle };
                    }
                }
                Phase::Settling { until } if now >= until => {
                    for player in &mut players {
                        player.window_rx_bytes = player.rx_bytes();
                    }
                    gauge = LoopGauge::start();
                    phase = Phase::Measuring { since: now, since_ns: wall_ns() };
                }
                Phase::Measuring { since, .. } if now.duration_since(since) >= options.window => break,
                Phase::Settling { .. } | Phase::Measuring { .. } => {}
            }
        }
        gauge.on_turn_end(Instant::now());
        progress.tick(now, || {
            let total: u64 = players.iter().map(Player::rx_bytes).sum();
            let (before_at, before) = bytes_before;
            let rate = (total - before) as f64 * 8e-6 / now.duration_since(before_at).as_secs_f64();
            bytes_before = (now, total);
            format!(
                "{}: {} of {} players joined, {rate:.0} Mbit/s, p99 {:.1} ms, {} stalls, {} missing, {} closed, {} failed",
                match phase {
                    Phase::Joining => "joining",
                    Phase::Settling { .. } => "settling",
                    Phase::Measuring { .. } => "measuring",
                },
                sums.joined,
                options.count,
                sums.latency.ms_at(99.0),
                sums.window_stalls,
                sums.window_missing,
                sums.closed,
                sums.failures.total(),
            )
        });
    }
    Ok(result(options, &players, phase, &mut sums, &gauge))
}

fn open(registry: &mio::Registry, options: &Options, index: usize, now: Instant) -> io::Result<Player> {
    let peer = Peer::open(registry, Token(index), &options.target, Intent::Play, index % options.streams.max(1))?;
    Ok(Player {
        peer: Some(peer),
        is_measured: index.is_multiple_of(options.measure_every.max(1)),
        joined_ns: 0,
        is_joined: false,
        next: [None; 2],
        last_due_ns: 0,
        last_media_at: now,
        stalled_since: None,
        frames: 0,
        media_bytes: 0,
        cached: 0,
        missing: 0,
        stalls: 0,
        window_rx_bytes: 0,
        gone: None,
        local: None,
    })
}

#[allow(clippy::too_many_arguments, reason = "one call site in the loop; a struct would only rename its locals")]
fn on_event(
    player: &mut Player,
    registry: &mio::Registry,
    event: &mio::event::Event,
    buffer: &mut ReadBuffer,
    now: Instant,
    in_window: bool,
    options: &Options,
    sums: &mut Sums,
) {
    let Some(mut peer) = player.peer.take() else { return };
    let before = peer.rx_bytes;
    // One look at the clock serves all frames of one read.
    let mut read_ns = 0;
    let turn = peer.handle_event(event, buffer, |media| {
        if read_ns == 0 {
            read_ns = wall_ns();
        }
        on_media(player, media, read_ns, in_window, sums);
    });
    if player.joined_ns == 0 && peer.is_started() {
        player.joined_ns = wall_ns();
        player.local = peer.local_address();
        sums.start_time.record_between(Some(peer.stages.opened_at), peer.stages.started_at);
    }
    let arrived = if options.media {
        peer.stages.media_at.is_some()
    } else {
        peer.is_started() || peer.stages.created_at.is_some()
    };
    if arrived && !player.is_joined {
        player.is_joined = true;
        player.local = peer.local_address();
        sums.joined += 1;
        sums.media_time.record_between(Some(peer.stages.opened_at), peer.stages.media_at);
        if options.media && !player.is_measured {
            peer.count_only();
        }
    }
    if peer.rx_bytes > before {
        on_bytes(player, now, in_window, sums);
    }
    match turn {
        Turn::Open => player.peer = Some(peer),
        Turn::Closed | Turn::Failed(_) => {
            let why = if let Turn::Failed(why) = turn {
                sums.failures.add(why.clone());
                why
            } else {
                sums.closed += 1;
                "closed by the server".into()
            };
            let gone = Gone { rx_bytes: peer.rx_bytes, tx_bytes: peer.tx_bytes, at_ns: wall_ns(), why };
            player.gone = Some(gone);
            peer.close(registry);
        }
    }
}

fn on_bytes(player: &mut Player, now: Instant, in_window: bool, sums: &mut Sums) {
    if let Some(since) = player.stalled_since.take()
        && in_window
    {
        sums.stall_length.record(now.duration_since(since));
    }
    player.last_media_at = now;
}

fn on_media(player: &mut Player, media: &Media<'_>, read_ns: u64, in_window: bool, sums: &mut Sums) {
    player.media_bytes += media.len as u64;
    let Some(stamp) = Stamp::read(media.type_id, media.head) else {
        if !crate::source::is_sequence_header(media.type_id, media.head) {
            player.frames += 1;
            sums.window_frames += u64::from(in_window);
        }
        return;
    };
    player.frames += 1;
    let next = &mut player.next[usize::from(media.type_id == 9)];
    if let Some(expected) = *next {
        // A number below the one expected is a publisher that began anew, not a gap.
        let missing = u64::from(stamp.sequence.saturating_sub(expected));
        player.missing += missing;
        if in_window {
            sums.window_missing += missing;
        }
    }
    *next = Some(stamp.sequence.wrapping_add(1));
    player.last_due_ns = player.last_due_ns.max(stamp.due_ns);
    if player.joined_ns == 0 || stamp.due_ns < player.joined_ns {
        player.cached += 1;
        return;
    }
    if in_window {
        sums.window_frames += 1;
        if stamp.due_ns > read_ns + 1_000_000_000 {
            // Not our clock: a stamp of another machine, or bytes that are damaged.
            sums.wrong_bytes += 1;
        }
        sums.latency.record_ns(read_ns.saturating_sub(stamp.due_ns));
    }
}

/// Finds players who see nothing. A player whose connection is gone is counted as closed, not as stalled.
fn sweep(players: &mut [Player], now: Instant, sums: &mut Sums) {
    for player in players.iter_mut().filter(|p| p.is_joined && p.peer.is_some()) {
        if player.stalled_since.is_none() && now.duration_since(player.last_media_at) > STALL {
            player.stalled_since = Some(player.last_media_at);
            player.stalls += 1;
            sums.window_stalls += 1;
        }
    }
}

fn result(options: &Options, players: &[Player], phase: Phase, sums: &mut Sums, gauge: &LoopGauge) -> Value {
    let end_ns = wall_ns();
    let now = Instant::now();
    let mut age_at_end = Latency::new();
    let (mut behind, mut stalled) = (0u64, 0u64);
    for player in players.iter().filter(|p| p.is_joined && p.peer.is_some()) {
        if player.is_measured && player.last_due_ns > 0 {
            let age_ns = end_ns.saturating_sub(player.last_due_ns);
            age_at_end.record_ns(age_ns);
            behind += u64::from(age_ns > STALL.as_nanos() as u64);
        }
        if let Some(since) = player.stalled_since {
            sums.stall_length.record(now.duration_since(since));
            stalled += 1;
        }
    }
    let window = if let Phase::Measuring { since, since_ns } = phase {
        let seconds = now.duration_since(since).as_secs_f64();
        let rx_bytes: u64 = players.iter().map(|p| p.rx_bytes() - p.window_rx_bytes).sum();
        json!({
            "start_ns": since_ns,
            "end_ns": end_ns,
            "seconds": round(seconds),
            "rx_bytes": rx_bytes,
            "mbit_per_second": round(rx_bytes as f64 * 8e-6 / seconds),
            "frames": sums.window_frames,
            "missing": sums.window_missing,
            "stalls": sums.window_stalls,
            "stalled_players": players.iter().filter(|p| p.stalls > 0).count(),
        })
    } else {
        Value::Null
    };
    let details: Vec<_> = if options.details {
        players
            .iter()
            .map(|p| {
                json!({
                    "local": p.local.map(|a| a.to_string()),
                    "rx_bytes": p.rx_bytes(),
                    "tx_bytes": p.tx_bytes(),
                    "media_bytes": p.media_bytes,
                    "frames": p.frames,
                    "cached": p.cached,
                    "missing": p.missing,
                    "stalls": p.stalls,
                    "closed_ns": p.gone.as_ref().map(|g| g.at_ns),
                    "closed_why": p.gone.as_ref().map(|g| g.why.clone()),
                })
            })
            .collect()
    } else {
        Vec::new()
    };
    let mut result = json!({
        "scenario": if options.media { "play" } else { "idle" },
        "players": options.count,
        "measured": players.iter().filter(|p| p.is_measured).count(),
        "joined": sums.joined,
        "held": players.iter().filter(|p| p.peer.is_some()).count(),
        "closed": sums.closed,
        "failures": sums.failures.to_json(),
        "window": window,
        "latency_ms": sums.latency.to_json(),
        "age_at_end_ms": age_at_end.to_json(),
        "stall_ms": sums.stall_length.to_json(),
        "stalled_at_end": stalled,
        "behind_at_end": behind,
        "connect_to_start_ms": sums.start_time.to_json(),
        "connect_to_media_ms": sums.media_time.to_json(),
        "rx_bytes": players.iter().map(Player::rx_bytes).sum::<u64>(),
        "tx_bytes": players.iter().map(Player::tx_bytes).sum::<u64>(),
        "media_bytes": players.iter().map(|p| p.media_bytes).sum::<u64>(),
        "frames": players.iter().map(|p| p.frames).sum::<u64>(),
        "cached": players.iter().map(|p| p.cached).sum::<u64>(),
        "foreign_clock": sums.wrong_bytes,
        "generator": gauge.to_json(),
    });
    if options.details
        && let Value::Object(fields) = &mut result
    {
        fields.insert("details".into(), Value::Array(details));
    }
    result
}
