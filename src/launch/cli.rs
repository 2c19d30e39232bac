//! The command line.

use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::log::Format;
use crate::config::{Loaded, Overrides, Refused, Severity};
use crate::launch::client::Client;
use crate::launch::ledger::LedgerCommand;
use crate::launch::{Exit, check, demo, kick, ledger, order, run, sessions};
use crate::stdx::units::{Secret, parse_duration};

/// The file that is used when none is named and it exists.
pub const DEFAULT_FILE: &str = "sluicegate.toml";
/// Where the commands that speak to a running server look for it.
pub const DEFAULT_API: &str = "http://127.0.0.1:8081";
/// The environment variable that holds the API token for the commands that speak to a running server.
pub const TOKEN_VARIABLE: &str = "SLUICEGATE_TOKEN";

/// Live-streaming edge with exact session accounting and control.
///
/// Without a command it runs the server. Without a file it runs the open development profile on loopback.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Run(ServerArgs),
    /// Verify the file and the machine, with numbers; exit 0 or 78.
    Check(ServerArgs),
    /// Run the development profile with a publisher and players of its own.
    Demo(DemoArgs),
    /// List the sessions of a running server.
    Sessions(SessionsArgs),
    /// End sessions of a running server.
    Kick(KickArgs),
    /// Look at the files of a ledger.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Have a running server read its configuration again.
    Reload(ApiArgs),
    /// Have a running server take no new sessions, end those that run, and exit.
    Drain(DrainArgs),
    /// Print the version.
    Version,
}

#[derive(Debug, Default, Args)]
struct ServerArgs {
    /// The configuration file [default: ./sluicegate.toml if it exists].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take warnings about the configuration for errors.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    overrides: OverrideArgs,
}

#[derive(Debug, Default, Args)]
struct OverrideArgs {
    /// Where RTMP listens; may be given several times (`shard.rtmp_listen`).
    #[arg(long, value_name = "ADDRESS:PORT")]
    rtmp_listen: Vec<SocketAddr>,
    /// Where the API listens (`api.listen`).
    #[arg(long, value_name = "ADDRESS:PORT")]
    api_listen: Option<SocketAddr>,
    /// How many shards; 0 is one for each core (`shard.count`).
    #[arg(long, value_name = "COUNT")]
    shards: Option<usize>,
    /// What is logged (`log.level`).
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How a log line looks (`log.format`).
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<FormatArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Human,
    Json,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Stop after so many seconds [default: run until interrupted].
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    #[command(flatten)]
    overrides: OverrideArgs,
}

#[derive(Debug, Args)]
struct ApiArgs {
    /// The API of the server.
    #[arg(long, value_name = "URL", default_value = DEFAULT_API)]
    api: String,
    /// The API token; better given as `SLUICEGATE_TOKEN`, because other users can see command lines.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

#[derive(Debug, Args)]
struct FilterArgs {
    /// publish, play, ingest or push; commas mean "or", here and below.
    #[arg(long)]
    kind: Option<String>,
    /// How it is carried: rtmp.
    #[arg(long)]
    protocol: Option<String>,
    /// The virtual host.
    #[arg(long)]
    vhost: Option<String>,
    /// The application.
    #[arg(long)]
    app: Option<String>,
    /// The stream: its name, app/stream, or vhost/app/stream.
    #[arg(long)]
    stream: Option<String>,
    /// The user.
    #[arg(long)]
    user: Option<String>,
    /// The peer: an address, address:port, or a block as 10.0.0.0/8.
    #[arg(long)]
    remote: Option<String>,
    /// establishing, running or stalling.
    #[arg(long)]
    state: Option<String>,
}

#[derive(Debug, Args)]
struct SessionsArgs {
    /// Print JSON as the API gives it; with --watch one array a line.
    #[arg(long)]
    json: bool,
    /// Look again every second.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct KickArgs {
    /// The session to end.
    #[arg(conflicts_with_all = ["kind", "protocol", "vhost", "app", "stream", "user", "remote", "state", "all"])]
    id: Option<String>,
    /// End every session (with filters: every session that matches, as without it).
    #[arg(long)]
    all: bool,
    /// Refuse the same peers on the same streams for so long, as "30s" or "10m".
    #[arg(long, value_name = "TIME", value_parser = ban_time)]
    ban_for: Option<String>,
    /// Only say which sessions match.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct DrainArgs {
    /// Over how long the goodbyes are spread, as "30s" or "10m"; at most a day [default: `shard.drain_timeout` of the server].
    #[arg(long, value_name = "TIME", value_parser = drain_time)]
    over: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

fn drain_time(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

fn ban_time(text: &str) -> Result<String, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("a ban of no time bans nobody".into()),
        _ => Ok(text.to_owned()),
    }
}

impl OverrideArgs {
    fn overrides(&self) -> Overrides {
        Overrides {
            rtmp_listen: self.rtmp_listen.clone(),
            api_listen: self.api_listen,
            shards: self.shards,
            log_level: self.log_level.clone(),
            log_format: self.log_format.map(|format| match format {
                FormatArg::Human => Format::Human,
                FormatArg::Json => Format::Json,
            }),
        }
    }
}

impl ApiArgs {
    fn client(&self) -> Result<Client, Exit> {
        let token = self.token.clone().or_else(|| std::env::var(TOKEN_VARIABLE).ok()).filter(|text| !text.is_empty());
        Client::new(&self.api, token.map(Secret::new)).map_err(|error| {
            eprintln!("sluicegate: {error}");
            Exit::Failed
        })
    }
}

impl FilterArgs {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("kind", &self.kind),
            ("protocol", &self.protocol),
            ("vhost", &self.vhost),
            ("app", &self.app),
            ("stream", &self.stream),
            ("user", &self.user),
            ("remote", &self.remote),
            ("state", &self.state),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// Does what the process's arguments say.
#[must_use]
pub fn main() -> ExitCode {
    execute(std::env::args_os()).into()
}

fn execute(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Failed } else { Exit::Clean };
        }
    };
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => load(&args).map_or_else(|exit| exit, |loaded| run::run(loaded, args.strict)),
        Command::Check(args) => load(&args).map_or_else(|exit| exit, |loaded| check::check(&loaded)),
        Command::Demo(args) => demo::demo(&args.overrides.overrides(), args.seconds.map(Duration::from_secs)),
        Command::Sessions(args) => args.api.client().map_or_else(
            |exit| exit,
            |client| wait(sessions::sessions(&client, &args.filters.pairs(), args.json, args.watch)),
        ),
        Command::Kick(args) => args.api.client().map_or_else(
            |exit| exit,
            |client| {
                let what = kick::Kick {
                    filters: args.filters.pairs(),
                    id: args.id,
                    all: args.all,
                    ban_for: args.ban_for,
                    dry_run: args.dry_run,
                };
                wait(kick::kick(&client, &what))
            },
        ),
        Command::Ledger(command) => ledger::ledger(&command),
        Command::Reload(api) => api.client().map_or_else(|exit| exit, |client| wait(order::reload(&client))),
        Command::Drain(args) => {
            args.api.client().map_or_else(|exit| exit, |client| wait(order::drain(&client, args.over.as_deref())))
        }
        Command::Version => {
            println!("sluicegate {}", env!("CARGO_PKG_VERSION"));
            Exit::Clean
        }
    }
}

/// Loads the configuration that the arguments mean and says what is doubtful about it.
fn load(args: &ServerArgs) -> Result<Loaded, Exit> {
    let found = Path::new(DEFAULT_FILE);
    let path = match &args.config {
        Some(path) => Some(path.as_path()),
        None if found.exists() => {
            eprintln!("sluicegate: using ./{DEFAULT_FILE}");
            Some(found)
        }
        None => None,
    };
    let env = |name: &str| std::env::var(name).ok();
    let loaded = crate::config::load(path, &args.overrides.overrides(), &env).map_err(|refused| {
        eprintln!("{refused}");
        Exit::Configuration
    })?;
    if !loaded.warnings.is_empty() {
        let mut problems = loaded.warnings.clone();
        if args.strict {
            for problem in &mut problems {
                problem.severity = Severity::Error;
            }
        }
        eprintln!("{}", Refused { problems });
        if args.strict {
            return Err(Exit::Configuration);
        }
    }
    Ok(loaded)
}

/// Runs one client command. A command that only asks needs one thread.
fn wait(work: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            eprintln!("sluicegate: {error}");
            Exit::Resource
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_run_with_its_flags() {
        let cli = parse("sluicegate --shards 2 --rtmp-listen 127.0.0.1:1 --rtmp-listen [::1]:1 -c x.toml").unwrap();
        assert!(cli.command.is_none());
        let overrides = cli.run.overrides.overrides();
        assert_eq!((overrides.shards, overrides.rtmp_listen.len()), (Some(2), 2));
        assert!(matches!(parse("sluicegate run --log-format json").unwrap().command, Some(Command::Run(_))));
        assert!(parse("sluicegate --rtmp-listen nowhere").is_err());
    }

    #[test]
    fn kick_takes_an_id_or_filters_and_not_both() {
        let Some(Command::Kick(args)) = parse("sluicegate kick --app live --kind play --ban-for 30s").unwrap().command
        else {
            panic!("not a kick")
        };
        assert_eq!(args.filters.pairs(), [("kind", "play".to_owned()), ("app", "live".to_owned())]);
        assert!(parse("sluicegate kick abc --app live").is_err());
        assert!(parse("sluicegate kick abc --ban-for 30").is_err(), "a time without a unit");
        assert!(parse("sluicegate kick abc --ban-for 0s").is_err());
        assert!(matches!(parse("sluicegate drain --over 10m").unwrap().command, Some(Command::Drain(_))));
        assert!(parse("sluicegate drain --over 10").is_err(), "a time without a unit");
    }

    #[test]
    fn wrong_usage_ends_with_one_and_help_with_zero() {
        let run = |line: &str| execute(line.split(' ').map(OsString::from));
        assert_eq!(run("sluicegate frobnicate"), Exit::Failed);
        assert_eq!(run("sluicegate --help"), Exit::Clean);
        assert_eq!(run("sluicegate version"), Exit::Clean);
        assert_eq!(run("sluicegate run -c /nonexistent/file.toml"), Exit::Configuration);
    }
}
