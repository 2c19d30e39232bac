//! `sluicegate-load`: publishers, players and storms by the thousand, to measure a server from outside.
//!
//! It shares the RTMP engines with the server and none of its I/O. Without arguments it runs the canonical scenario
//! (one publisher, 500 players, 10 s) against `127.0.0.1:1935` and prints what matters most.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "sizes, counts and times of a bounded run, for statistics; nothing here is read from a claim"
)]

mod floor;
mod net;
mod peer;
mod play;
mod publish;
mod receiver;
mod report;
mod scan;
mod source;
mod stamp;
mod storm;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::net::Route;
use crate::peer::Target;

#[derive(Parser)]
#[command(
    name = "sluicegate-load",
    version,
    about = "Publishers, players and storms, to measure a server from outside."
)]
struct Cli {
    /// One JSON object on stdout instead of lines for people.
    #[arg(long, global = true)]
    json: bool,
    /// No progress on stderr.
    #[arg(long, global = true)]
    quiet: bool,
    /// Run on this core only.
    #[arg(long, global = true, value_name = "N")]
    cpu: Option<usize>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Publish N streams.
    Publish(Publish),
    /// Play a stream, or one of many, N times, and measure what arrives.
    Play(Play),
    /// Connect, have a play accepted, close; as fast as it goes, or at a rate.
    Storm(Storm),
    /// Hold N players of a stream that has no media.
    Idle(Idle),
    /// Serve `play` with the send calls alone.
    Floor(Floor),
    /// Answer the questions of a server with yes, and take what it tells.
    Receiver(Receiver),
}

#[derive(Args)]
struct Where {
    /// The server.
    #[arg(long, default_value = "127.0.0.1:1935")]
    address: SocketAddr,
    /// Application.
    #[arg(long, default_value = "live")]
    app: String,
    /// Use so many loopback source addresses, 127.0.0.2 and up, in turn.
    #[arg(long, default_value_t = 0, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=250))]
    source_addresses: u32,
    /// How long to measure.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

impl Where {
    fn target(&self, stream: &str) -> Target {
        let route = Route { to: self.address, source_addresses: self.source_addresses };
        Target { route, app: self.app.clone(), stream: stream.to_owned() }
    }

    fn seconds(&self) -> Duration {
        seconds(self.seconds)
    }
}

#[derive(Args)]
struct Publish {
    #[command(flatten)]
    at: Where,
    /// Stream name; `%d` becomes the publisher's number.
    #[arg(long, default_value = "load")]
    stream: String,
    /// Number of publishers.
    #[arg(long, short = 'n', default_value_t = 1)]
    count: usize,
    /// Bits a second of each synthetic stream, sound and pictures together.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(50_000..=1_000_000_000))]
    bitrate: u64,
    /// Publish this FLV file in a loop instead.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Connections begun in a second.
    #[arg(long, default_value_t = 200.0)]
    join_rate: f64,
}

#[derive(Args)]
struct Play {
    #[command(flatten)]
    at: Where,
    /// Stream name; `%d` becomes the player's number modulo `--streams`.
    #[arg(long, default_value = "load")]
    stream: String,
    /// Streams behind `%d`; as many as players unless given.
    #[arg(long)]
    streams: Option<usize>,
    /// Number of players.
    #[arg(long, short = 'n', default_value_t = 500)]
    players: usize,
    /// Connections begun in a second.
    #[arg(long, default_value_t = 500.0)]
    join_rate: f64,
    /// How long to wait for first frames after the last connection began, in seconds.
    #[arg(long, default_value_t = 15.0)]
    join_timeout: f64,
    /// Time between the last join and the measured window, in seconds.
    #[arg(long, default_value_t = 2.0)]
    settle: f64,
    /// Parse every K-th player only. The others are counted in bytes, cost next to nothing, and do not answer pings.
    #[arg(long, default_value_t = 1, value_name = "K")]
    measure_every: usize,
    /// One entry for each player in the JSON: local address, bytes, when and why it was closed.
    #[arg(long)]
    details: bool,
}

#[derive(Args)]
struct Storm {
    #[command(flatten)]
    at: Where,
    /// Stream name; `%d` becomes the slot's number modulo `--streams`, at a rate the session's.
    #[arg(long, default_value = "load")]
    stream: String,
    /// Streams behind `%d`.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Sessions in progress at any moment; at a rate, the most.
    #[arg(long, short = 'n', default_value_t = 1_500)]
    concurrency: usize,
    /// Begin so many sessions a second, whatever becomes of those before. Their times count from when they were due.
    #[arg(long)]
    rate: Option<f64>,
    /// How long the storm blows before it is measured, in seconds.
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
}

#[derive(Args)]
struct Receiver {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:19400")]
    listen: SocketAddr,
    /// How long each request waits for its answer, in milliseconds.
    #[arg(long, default_value_t = 1.0)]
    delay_ms: f64,
    /// Close the connection after each answer.
    #[arg(long)]
    close: bool,
    /// Read requests and never answer.
    #[arg(long)]
    silent: bool,
    /// How long.
    #[arg(long, default_value_t = 600.0)]
    seconds: f64,
}

#[derive(Args)]
struct Idle {
    #[command(flatten)]
    at: Where,
    /// A stream that nobody publishes.
    #[arg(long, default_value = "silent")]
    stream: String,
    /// Number of players.
    #[arg(long, short = 'n', default_value_t = 10_000)]
    players: usize,
    /// Connections begun in a second.
    #[arg(long, default_value_t = 1_000.0)]
    join_rate: f64,
}

#[derive(Args)]
struct Floor {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:19399")]
    listen: SocketAddr,
    /// Bits a second of the synthetic stream.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(50_000..=1_000_000_000))]
    bitrate: u64,
    /// From the beginning of one round of calls to that of the next, at least; each frame by itself when it is 0.
    #[arg(long, default_value_t = 0.0)]
    every_ms: f64,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    net::raise_descriptor_limit();
    net::stop_on_signals();
    if let Some(core) = cli.cpu
        && let Err(error) = net::pin(core)
    {
        eprintln!("sluicegate-load: cannot run on core {core}: {error}");
        return ExitCode::FAILURE;
    }
    let result = match &cli.command {
        Some(command) => run(command, cli.quiet),
        None => canonical(cli.quiet),
    };
    match result {
        Ok(result) => {
            report::print(&result, cli.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sluicegate-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, quiet: bool) -> io::Result<Value> {
    match command {
        Command::Publish(args) => publish::run(&publish::Options {
            target: args.at.target(&args.stream),
            count: args.count,
            bitrate_bps: args.bitrate,
            file: args.file.as_deref().map(source::File::open).transpose()?.map(Arc::new),
            run_for: args.at.seconds(),
            join_rate: rate(args.join_rate),
            quiet,
        }),
        Command::Play(args) => play::run(&play::Options {
            target: args.at.target(&args.stream),
            count: args.players,
            streams: args.streams.unwrap_or(args.players),
            join_rate: rate(args.join_rate),
            join_timeout: seconds(args.join_timeout),
            settle: seconds(args.settle),
            window: args.at.seconds(),
            measure_every: args.measure_every,
            media: true,
            details: args.details,
            quiet,
        }),
        Command::Storm(args) => storm::run(&storm::Options {
            target: args.at.target(&args.stream),
            concurrency: args.concurrency,
            streams: args.streams,
            rate: args.rate.map(rate),
            warm_up: seconds(args.warm_up),
            run_for: args.at.seconds(),
            quiet,
        }),
        Command::Idle(args) => play::run(&play::Options {
            target: args.at.target(&args.stream),
            count: args.players,
            streams: 1,
            join_rate: rate(args.join_rate),
            join_timeout: Duration::from_secs(15),
            settle: Duration::from_secs(1),
            window: args.at.seconds(),
            measure_every: 1,
            media: false,
            details: false,
            quiet,
        }),
        Command::Floor(args) => floor::run(&floor::Options {
            listen: args.listen,
            bitrate_bps: args.bitrate,
            every: seconds(args.every_ms / 1_000.0),
            run_for: seconds(args.seconds),
            quiet,
        }),
        Command::Receiver(args) => receiver::run(&receiver::Options {
            listen: args.listen,
            delay: seconds(args.delay_ms / 1_000.0),
            close: args.close,
            silent: args.silent,
            run_for: seconds(args.seconds),
            quiet,
        }),
    }
}

/// One publisher at 2 Mbit/s, 500 players, 10 seconds: the run that two people can compare.
fn canonical(quiet: bool) -> io::Result<Value> {
    let target = Target {
        route: Route { to: SocketAddr::from(([127, 0, 0, 1], 1935)), source_addresses: 0 },
        app: "live".into(),
        stream: "load".into(),
    };
    let publish = publish::Options {
        target: target.clone(),
        count: 1,
        bitrate_bps: 2_000_000,
        file: None,
        run_for: Duration::from_mins(1),
        join_rate: 1.0,
        quiet: true,
    };
    let publisher = std::thread::spawn(move || publish::run(&publish));
    std::thread::sleep(Duration::from_millis(500));
    let watched = play::run(&play::Options {
        target,
        count: 500,
        streams: 1,
        join_rate: 500.0,
        join_timeout: Duration::from_secs(15),
        settle: Duration::from_secs(2),
        window: Duration::from_secs(10),
        measure_every: 1,
        media: true,
        details: false,
        quiet,
    });
    net::stop();
    let sent = publisher.join().map_err(|_| io::Error::other("the publisher's thread ended badly"))??;
    let played = watched?;
    Ok(json!({
        "joined": played["joined"],
        "latency_ms": played["latency_ms"],
        "mbit_per_second": played["window"]["mbit_per_second"],
        "stalls": played["window"]["stalls"],
        "missing_frames": played["window"]["missing"],
        "connect_to_media_ms": played["connect_to_media_ms"],
        "closed_by_server": played["closed"],
        "failures": { "play": played["failures"], "publish": sent["failures"] },
        "publisher_lateness_ms": sent["lateness_ms"],
        "generator": played["generator"],
    }))
}

/// Hours are enough, and keep every sum of instants inside the clock.
fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.clamp(0.0, 86_400.0))
}

fn rate(value: f64) -> f64 {
    value.clamp(0.1, 1e6)
}
