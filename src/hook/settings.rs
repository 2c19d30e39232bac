//! What hooks obey.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::admission::AppPattern;
use crate::event::SinkFilter;
use crate::names::Kind;
use crate::stdx::settings::{SECRET_CHARS_MIN, SettingsError, is_long_enough, is_varied};
use crate::stdx::units::{self, Secret};

/// `[hook]`: the calls that we make, to ask and to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The longest that a connection to a back end may take, TLS included.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// The longest that a question may take from when it is put until its answer is read, waiting for its turn included.
    /// A newcomer waits as long when the back end hangs.
    #[serde(with = "units::duration")]
    pub decide_timeout: Duration,
    /// The same for one request that tells. A receiver that is slower is told again.
    #[serde(with = "units::duration")]
    pub event_timeout: Duration,
    /// The most bytes of headers in a response; more is a failure.
    #[serde(with = "units::bytes")]
    pub response_headers: u64,
    /// The most bytes of body in a response; more is a failure. A question in flight may hold as much.
    #[serde(with = "units::bytes")]
    pub response_body: u64,
    /// Requests under way at once to one back end, each on a connection of its own.
    pub concurrency: usize,
    /// Questions that wait for one back end, and events of one receiver that are held in memory; what does not fit is
    /// a failure there, and stays on disk here.
    pub queue: usize,
    /// Events a second told to one receiver, so that one that comes back after an hour is not run over.
    pub tell_rate: u32,
    /// Whom to ask, the first that is responsible.
    pub ask: Vec<Ask>,
    /// Whom to tell.
    pub tell: Vec<Tell>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            decide_timeout: Duration::from_secs(3),
            event_timeout: Duration::from_secs(5),
            response_headers: 16 << 10,
            response_body: 64 << 10,
            concurrency: 64,
            queue: 10_000,
            tell_rate: 2_000,
            ask: Vec::new(),
            tell: Vec::new(),
        }
    }
}

/// `[[hook.ask]]`: a back end that decides who may publish and play.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// How logs, metrics and the API name it.
    pub name: String,
    /// Where it is asked, with POST. `http` or `https`; without user and password.
    pub url: String,
    /// The apps that it decides for; none means all.
    #[serde(default)]
    pub apps: Vec<AppPattern>,
    /// The kinds that it decides for: `publish`, `play`.
    #[serde(default = "newcomers")]
    pub kinds: Vec<Kind>,
    /// What requests are signed with: the secret in use, and beside it the next or the last one during a rotation.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// What a player meets when there is no usable answer. A publisher is always refused then.
    #[serde(default)]
    pub play_on_failure: OnFailure,
    /// Remembered answers count for publishers too, also while the back end fails.
    #[serde(default)]
    pub cache_publish: bool,
    /// A remembered answer counts for one address only; else for whoever comes with the same query.
    #[serde(default = "yes")]
    pub cache_by_address: bool,
    /// How long past its time a remembered yes still counts while the back end fails.
    #[serde(default = "a_minute", with = "units::duration")]
    pub stale_if_error: Duration,
    /// How often to ask again while a session runs; 0 is never. An answer may say otherwise.
    #[serde(default, with = "units::duration")]
    pub recheck_every: Duration,
    /// The name in the URL may lead to a loopback or link-local address. An address in the URL itself, and `localhost`,
    /// may in any case; a name that somebody else answers for should not reach what only listens here.
    #[serde(default)]
    pub allow_private: bool,
}

/// What a player meets when nobody could decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Deny,
    /// It is let in.
    Allow,
}

/// `[[hook.tell]]`: a receiver of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tell {
    /// How logs, metrics and the API name it, and by which what is still to be told is kept: under another name it
    /// is another receiver.
    pub name: String,
    /// Where it is told, with POST. `http` or `https`; without user and password.
    pub url: String,
    /// What requests are signed with, as for a question.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// The events it wants: `session.closed`, `session.*`, `*`.
    #[serde(default = "most_events")]
    pub events: Vec<String>,
    /// Only of these apps; none means all.
    #[serde(default)]
    pub apps: Vec<AppPattern>,
    /// Only of sessions of these kinds; none means all.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// Events in one request. With 1 the body is the event itself, else a list.
    #[serde(default = "one")]
    pub batch_max: usize,
    /// Off, nothing is recorded for it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// As for a question.
    #[serde(default)]
    pub allow_private: bool,
}

impl Tell {
    /// What it wants to hear.
    ///
    /// # Errors
    /// A pattern that fits no event.
    pub fn filter(&self) -> Result<SinkFilter, crate::event::sink::UnknownEvent> {
        SinkFilter::new(&self.events, &self.apps, &self.kinds)
    }
}

fn newcomers() -> Vec<Kind> {
    vec![Kind::Publish, Kind::Play]
}

fn most_events() -> Vec<String> {
    ["session.*", "stream.*", "server.*"].map(str::to_owned).to_vec()
}

fn a_minute() -> Duration {
    Duration::from_mins(1)
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// Secrets of one back end: the one in use and one more.
pub const SECRETS_MAX: usize = 2;
/// The most events in one request.
pub const BATCH_MAX: usize = 1_000;
/// Back ends of one sort.
pub const BACK_ENDS_MAX: usize = 64;
/// The longest name of a back end, in bytes.
const NAME_BYTES_MAX: usize = 64;

impl Settings {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (section, many) in [("ask", self.ask.len()), ("tell", self.tell.len())] {
            if many > BACK_ENDS_MAX {
                return wrong(format!("hook.{section}"), format!("{many} are more than {BACK_ENDS_MAX}"));
            }
        }
        let mut names = HashSet::new();
        for (index, ask) in self.ask.iter().enumerate() {
            let field = |key: &str| format!("hook.ask[{index}].{key}");
            check_name(&ask.name, field("name"), &mut names)?;
            check_url(&ask.url, field("url"))?;
            check_secrets(&ask.secrets, &field("secrets"))?;
            if ask.kinds.is_empty() || ask.kinds.iter().any(|kind| !newcomers().contains(kind)) {
                return wrong(field("kinds"), "only publishers and players are asked for".into());
            }
            if !ask.recheck_every.is_zero() && ask.recheck_every < Duration::from_secs(1) {
                return wrong(field("recheck_every"), "asking again more than once a second is a flood".into());
            }
        }
        let mut names = HashSet::new();
        for (index, tell) in self.tell.iter().enumerate() {
            let field = |key: &str| format!("hook.tell[{index}].{key}");
            check_name(&tell.name, field("name"), &mut names)?;
            check_url(&tell.url, field("url"))?;
            check_secrets(&tell.secrets, &field("secrets"))?;
            if let Err(error) = tell.filter() {
                return wrong(field("events"), error.to_string());
            }
            if !(1..=BATCH_MAX).contains(&tell.batch_max) {
                return wrong(field("batch_max"), format!("a request has 1 to {BATCH_MAX} events"));
            }
        }
        Ok(())
    }
}

fn wrong<T>(field: String, message: String) -> Result<T, SettingsError> {
    Err(SettingsError::new(field, message))
}

fn check_name<'a>(name: &'a str, field: String, taken: &mut HashSet<&'a str>) -> Result<(), SettingsError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        let message = format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`");
        return wrong(field, message);
    }
    if !taken.insert(name) {
        return wrong(field, format!("`{name}` is there twice"));
    }
    Ok(())
}

fn check_url(text: &str, field: String) -> Result<(), SettingsError> {
    // What may hold a secret is not shown again.
    let Ok(url) = Url::parse(text) else {
        return wrong(field, "this is not a URL, as \"https://backend.example/hook\"".into());
    };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong(field, format!("`{}` is neither http nor https", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong(field, "a user or password in a URL ends up in logs; requests are signed instead".into());
    }
    if url.fragment().is_some() {
        return wrong(field, "what follows `#` is never sent".into());
    }
    Ok(())
}

fn check_secrets(secrets: &[Secret], field: &str) -> Result<(), SettingsError> {
    if secrets.len() > SECRETS_MAX {
        return wrong(field.to_owned(), format!("at most {SECRETS_MAX}: the one in use, and one during a rotation"));
    }
    for (index, secret) in secrets.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let text = secret.reveal();
        if !is_long_enough(text) {
            return wrong(field, format!("a secret needs at least {SECRET_CHARS_MIN} characters (128 bits)"));
        }
        if !is_varied(text) {
            return wrong(field, "the secret repeats too few characters to be random".into());
        }
        if secrets.iter().take(index).any(|other| other == secret) {
            return wrong(field, "the secret is there twice".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "b3BlbiBzZXNhbWUgcGxlYXNl";

    fn read(text: &str) -> Result<(), SettingsError> {
        toml::from_str::<Settings>(text).unwrap().check()
    }

    #[test]
    fn an_ask_and_a_tell_need_a_name_and_a_url() {
        assert_eq!(Settings::default().check(), Ok(()));
        let text = format!(
            "[[ask]]\nname = \"auth\"\nurl = \"https://backend.example/ask\"\nsecrets = [\"{SECRET}\"]\n\
             [[tell]]\nname = \"auth\"\nurl = \"http://127.0.0.1:9000/\"\n"
        );
        assert_eq!(read(&text), Ok(()));
        let settings: Settings = toml::from_str(&text).unwrap();
        assert_eq!(settings.ask[0].kinds, [Kind::Publish, Kind::Play]);
        assert_eq!(settings.ask[0].play_on_failure, OnFailure::Deny);
        assert_eq!((settings.tell[0].batch_max, settings.tell[0].enabled), (1, true));
        assert!(!settings.tell[0].filter().unwrap().matches(&crate::event::Event::Attempt(crate::event::Attempt {
            protocol: crate::names::Protocol::Rtmp,
            kind: None,
            remote: "192.0.2.1:1".parse().unwrap(),
            at: std::time::Instant::now(),
            reason: crate::session::Reason::Banned.into(),
            wanted: crate::event::Wanted::default(),
        })));
        for text in [
            "[[ask]]\nname = \"a\"",
            "[[tell]]\nurl = \"http://a/\"",
            "[[tell]]\nname=\"a\"\nurl=\"http://a/\"\nx=1",
            "[[ask]]\nname=\"a\"\nurl=\"http://a/\"\napps=[\"a//b\"]",
        ] {
            assert!(toml::from_str::<Settings>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_types_cannot_say_is_checked() {
        let good = "name = \"a\"\nurl = \"http://a/\"\n";
        for (text, field) in [
            ("[[ask]]\nname = \"\"\nurl = \"http://a/\"".to_owned(), "hook.ask[0].name"),
            ("[[ask]]\nname = \"a b\"\nurl = \"http://a/\"".to_owned(), "hook.ask[0].name"),
            (format!("[[ask]]\n{good}[[ask]]\n{good}"), "hook.ask[1].name"),
            ("[[ask]]\nname = \"a\"\nurl = \"backend\"".to_owned(), "hook.ask[0].url"),
            ("[[ask]]\nname = \"a\"\nurl = \"ftp://a/\"".to_owned(), "hook.ask[0].url"),
            ("[[tell]]\nname = \"a\"\nurl = \"http://me:secret@a/\"".to_owned(), "hook.tell[0].url"),
            ("[[tell]]\nname = \"a\"\nurl = \"http://a/#b\"".to_owned(), "hook.tell[0].url"),
            (format!("[[ask]]\n{good}secrets = [\"short\"]"), "hook.ask[0].secrets[0]"),
            (format!("[[ask]]\n{good}secrets = [\"aaaaaaaaaaaaaaaaaaaaaaaaaaaa\"]"), "hook.ask[0].secrets[0]"),
            (format!("[[ask]]\n{good}secrets = [\"{SECRET}\", \"{SECRET}\"]"), "hook.ask[0].secrets[1]"),
            (format!("[[ask]]\n{good}secrets = [\"{SECRET}1\", \"{SECRET}2\", \"{SECRET}3\"]"), "hook.ask[0].secrets"),
            (format!("[[ask]]\n{good}kinds = [\"push\"]"), "hook.ask[0].kinds"),
            (format!("[[ask]]\n{good}kinds = []"), "hook.ask[0].kinds"),
            (format!("[[ask]]\n{good}recheck_every = \"10ms\""), "hook.ask[0].recheck_every"),
            (format!("[[tell]]\n{good}events = [\"session\"]"), "hook.tell[0].events"),
            (format!("[[tell]]\n{good}batch_max = 0"), "hook.tell[0].batch_max"),
            (format!("[[tell]]\n{good}batch_max = 1001"), "hook.tell[0].batch_max"),
            (format!("[[tell]]\n{good}").repeat(2), "hook.tell[1].name"),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.field, field, "{text}");
            for secret in [SECRET, "secret@", "short\""] {
                assert!(!error.message.contains(secret), "{error} shows a secret");
            }
        }
        assert_eq!(read(&format!("[[ask]]\n{good}secrets = [\"{SECRET}1\", \"{SECRET}2\"]")), Ok(()));
    }

    #[test]
    fn settings_print_without_their_secrets() {
        let text = format!("[[ask]]\nname = \"a\"\nurl = \"http://a/\"\nsecrets = [\"{SECRET}\"]");
        let settings: Settings = toml::from_str(&text).unwrap();
        assert!(!format!("{settings:?}").contains(SECRET));
        assert!(!toml::to_string(&settings).unwrap().contains(SECRET));
    }
}
