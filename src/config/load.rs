//! From a file to a [`Config`], with every mistake told at its place.
//!
//! The document is parsed once with spans. One walk compares it with the serialized default configuration, which
//! gives the valid keys; every leaf is then read on its own, so that one wrong value does not hide the next.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::admission::settings::{Access, AddressRule, Effect, JwtRule, KeyRule, SignedRule, Then};
use crate::api::settings::{Role, Token};
use crate::config::log::Format;
use crate::config::{Config, Position, Problem, Refused, Severity, check};
use crate::stdx::units::Secret;

/// The largest configuration file. Ours are a few KiB; more is a mistake in the path.
pub const FILE_BYTES_MAX: u64 = 5 << 20;

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No file: the open development profile.
    Development,
    /// This file.
    File(PathBuf),
}

/// A configuration that may be run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where they came from.
    pub origin: Origin,
    /// What was put over them, for when they are read again.
    pub overrides: Overrides,
    /// What is doubtful about them.
    pub warnings: Vec<Problem>,
}

/// What the command line says over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `shard.rtmp_listen`
    pub rtmp_listen: Vec<SocketAddr>,
    /// `api.listen`
    pub api_listen: Option<SocketAddr>,
    /// `shard.count`
    pub shards: Option<usize>,
    /// `log.level`
    pub log_level: Option<String>,
    /// `log.format`
    pub log_format: Option<Format>,
}

impl Overrides {
    /// Puts what was said in place of what the file says.
    pub fn apply(&self, config: &mut Config) {
        if !self.rtmp_listen.is_empty() {
            config.shard.rtmp_listen.clone_from(&self.rtmp_listen);
        }
        if let Some(listen) = self.api_listen {
            config.api.listen = listen;
        }
        if let Some(count) = self.shards {
            config.shard.count = count;
        }
        if let Some(level) = &self.log_level {
            config.log.level.clone_from(level);
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
    }
}

/// Loads `path`, or the development profile when there is none, puts `overrides` over it and checks the whole.
/// `env` looks an environment variable up.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(
    path: Option<&Path>,
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Refused> {
    let Some(path) = path else {
        let mut config = Config::development();
        overrides.apply(&mut config);
        // The open profile is for one machine: told to listen elsewhere without a file, publishing stays at home.
        if config.is_public() {
            config.admission.publish = Access::Loopback;
        }
        return finish(config, Origin::Development, overrides, &Document::default(), Vec::new());
    };
    let name = path.display().to_string();
    let bytes = read(path).map_err(|message| Refused { problems: vec![Problem::error("", message).in_file(&name)] })?;
    let (mut config, document) = parse(&bytes, env).map_err(|problems| named(problems, &name))?;
    let mut problems = Vec::new();
    if let Some(key) = document.literal_secret.as_deref()
        && is_world_readable(path)
    {
        problems.push(Problem::warning(
            key,
            "the file holds a secret and every user of this machine may read it; `chmod o-r` it, or write \
             \"${NAME}\" and give the secret in the environment",
        ));
    }
    overrides.apply(&mut config);
    finish(config, Origin::File(path.to_owned()), overrides, &document, problems)
        .map_err(|refused| named(refused.problems, &name))
}

/// Reads a document into a configuration, without range checks.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document. Secrets are not shown.
pub fn parse(bytes: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Result<(Config, Document), Vec<Problem>> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(vec![Problem::error("", too_large())]);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
        vec![Problem::error("", "the file is not UTF-8 text").at(Some(Lines::new(good).position(good.len())))]
    })?;
    let lines = Lines::new(text);
    let (mut root, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        // Behind the first error of syntax the parser guesses; what it says later is only sure about duplicates.
        let told = syntax.iter().enumerate().filter(|(n, error)| *n == 0 || error.message().contains("duplicate"));
        return Err(told
            .map(|(_, error)| {
                let mut message = error.message().replace('\n', ", ");
                // The place of a duplicate is that of its key.
                let key = error.span().and_then(|span| text.get(span)).filter(|_| message.contains("duplicate key"));
                if let Some(key) = key {
                    message = message.replace("duplicate key", &format!("duplicate key `{}`", join("", key)));
                }
                Problem::error("", message).at(error.span().map(|span| lines.position(span.start)))
            })
            .collect());
    }
    let template = template();
    let mut walk = Walk {
        lines: &lines,
        root: root.span(),
        template: &template,
        problems: Vec::new(),
        places: HashMap::new(),
        substituted: HashSet::new(),
        failed: HashSet::new(),
        values: Vec::new(),
        literal_secret: None,
        unusable: HashSet::new(),
    };
    for (key, value) in root.get_mut().iter_mut() {
        walk.substitute(key.get_ref(), value, env);
    }
    walk.table("", &[], root.get_ref(), &template);
    let Walk { mut problems, places, literal_secret, unusable, .. } = walk;
    let document = Document { places, literal_secret };
    if !problems.is_empty() {
        prune(root.get_mut(), &unusable);
    }
    match Config::deserialize(toml::de::Deserializer::from(root)) {
        Ok(config) if problems.is_empty() => Ok((config, document)),
        // What is wrong with the values of the rest is told with it, so that nobody mends a file twice.
        Ok(rest) => {
            problems.extend(check::values(&rest).into_iter().map(|problem| document.place(problem)));
            Err(sorted(problems))
        }
        Err(error) => {
            if problems.is_empty() {
                // Not reached as long as the walk knows every shape of a setting; the message stays mute because
                // it could quote a secret.
                let at = error.span().map(|span| lines.position(span.start));
                problems.push(Problem::error("", "the value cannot be used here").at(at));
            }
            Err(sorted(problems))
        }
    }
}

/// What is remembered of a document for later messages.
#[derive(Clone, Debug, Default)]
pub struct Document {
    places: HashMap<String, Position>,
    /// The first setting with a secret that stands in the file itself.
    literal_secret: Option<String>,
}

impl Document {
    /// Where `key` stands, if it stands there. What is in a list is found at the list where it has no place of its own.
    #[must_use]
    pub fn position(&self, key: &str) -> Option<Position> {
        let mut key = key;
        loop {
            if let Some(position) = self.places.get(key) {
                return Some(*position);
            }
            let list = key.rfind('[')?;
            // `list[0].key` is in `list[0]`, and that in `list`.
            key = key.get(..key.rfind('.').filter(|dot| *dot > list).unwrap_or(list))?;
        }
    }

    fn place(&self, problem: Problem) -> Problem {
        let at = self.position(&problem.key);
        problem.at(at)
    }
}

fn finish(
    config: Config,
    origin: Origin,
    overrides: &Overrides,
    document: &Document,
    mut problems: Vec<Problem>,
) -> Result<Loaded, Refused> {
    problems.extend(check::check(&config));
    problems = problems.into_iter().map(|problem| document.place(problem)).collect();
    if let Origin::File(path) = &origin {
        let name = path.display().to_string();
        problems = problems.into_iter().map(|problem| problem.in_file(&name)).collect();
    } else {
        // Without a file there is nobody to warn: the profile is what the banner says it is.
        problems.retain(|problem| problem.severity == Severity::Error);
    }
    let problems = sorted(problems);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(Refused { problems });
    }
    Ok(Loaded { config, origin, overrides: overrides.clone(), warnings: problems })
}

fn named(problems: Vec<Problem>, name: &str) -> Refused {
    Refused { problems: problems.into_iter().map(|problem| problem.in_file(name)).collect() }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| (problem.severity, problem.at.is_none(), problem.at));
    problems
}

fn too_large() -> String {
    format!("the file is larger than {} MiB, which no configuration is", FILE_BYTES_MAX >> 20)
}

/// Reads a file, and not more than one byte beyond the limit of it.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let meta = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if meta.is_dir() {
        return Err("is a directory; name the file in it".into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

fn is_world_readable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

/// The default configuration as a tree, with one element in each list of tables, so that their keys are known.
/// Secrets stand in it as `***`, by which they are recognised.
fn template() -> toml::Table {
    let mut config = Config::default();
    let secret = || Secret::new(String::new());
    config.api.tokens = vec![Token { token: secret(), role: Role::Read }];
    config.admission.rules = vec![AddressRule {
        effect: Effect::Deny,
        networks: Vec::new(),
        listener: Some(SocketAddr::from(([0, 0, 0, 0], 0))),
        apps: Vec::new(),
        kinds: Vec::new(),
    }];
    config.admission.keys = vec![KeyRule {
        keys: vec![secret()],
        parameter: String::new(),
        user: String::new(),
        apps: Vec::new(),
        kinds: Vec::new(),
        then: Then::Allow,
    }];
    config.admission.signed = vec![SignedRule {
        secrets: vec![secret()],
        ends_session: true,
        apps: Vec::new(),
        kinds: Vec::new(),
        then: Then::Allow,
    }];
    config.admission.jwt = vec![JwtRule { secrets: vec![secret()], ..JwtRule::default() }];
    // None of these texts is shown: only the keys and the places of secrets matter.
    let back_end = "name = \"\"\nurl = \"\"\nsecrets = [\"\"]\n";
    config.hook.ask = toml::from_str(back_end).into_iter().collect();
    config.hook.tell = toml::from_str(back_end).into_iter().collect();
    toml::Table::try_from(config).unwrap_or_default()
}

const SECRET: &str = "***";

fn has_secret(template: &toml::Value) -> bool {
    match template {
        toml::Value::String(text) => text == SECRET,
        toml::Value::Array(items) => items.iter().any(has_secret),
        toml::Value::Table(table) => table.values().any(has_secret),
        _ => false,
    }
}

struct Walk<'a> {
    lines: &'a Lines<'a>,
    root: Range<usize>,
    template: &'a toml::Table,
    problems: Vec<Problem>,
    places: HashMap<String, Position>,
    /// Where values from the environment stand.
    substituted: HashSet<usize>,
    /// Texts whose substitution failed, about which everything is said.
    failed: HashSet<usize>,
    /// Values from the environment, with their names: they may be secrets, so no message shows them.
    values: Vec<(String, String)>,
    literal_secret: Option<String>,
    /// Where the keys stand that are unknown or whose values cannot be read.
    unusable: HashSet<usize>,
}

impl Walk<'_> {
    /// Replaces `${NAME}` in every text below `value`.
    fn substitute(&mut self, path: &str, value: &mut Spanned<DeValue<'_>>, env: &dyn Fn(&str) -> Option<String>) {
        let at = value.span().start;
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => match expand(text, env) {
                Ok((expanded, used)) => {
                    if !used.is_empty() {
                        self.substituted.insert(at);
                    }
                    self.values.extend(used);
                    *text = expanded.into();
                }
                Err(message) => {
                    self.failed.insert(at);
                    self.problems.push(Problem::error(path, message).at(Some(self.lines.position(at))));
                }
            },
            DeValue::Array(items) => {
                for item in items.iter_mut() {
                    self.substitute(path, item, env);
                }
            }
            DeValue::Table(table) => {
                for (key, value) in table.iter_mut() {
                    self.substitute(&join(path, key.get_ref()), value, env);
                }
            }
            _ => {}
        }
    }

    /// Compares one table with its template. `keys` is the way to it.
    fn table(&mut self, path: &str, keys: &[&str], table: &DeTable<'_>, template: &toml::Table) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let here = join(path, name);
            let at = self.lines.position(key.span().start);
            self.places.insert(here.clone(), at);
            match template.get(name) {
                None => {
                    let hint = self.nearest(path, name, template);
                    self.problems.push(Problem::error(here, format!("there is no such key; {hint}")).at(Some(at)));
                    self.unusable.insert(key.span().start);
                }
                Some(expected) => {
                    let keys: Vec<&str> = keys.iter().copied().chain([name]).collect();
                    let before = self.problems.len();
                    self.value(&here, &keys, value, expected);
                    let is_section = expected.is_table() && matches!(value.get_ref(), DeValue::Table(_));
                    if !is_section && (self.problems.len() > before || self.failed_in(value)) {
                        self.unusable.insert(key.span().start);
                    }
                }
            }
        }
    }

    fn value(&mut self, path: &str, keys: &[&str], value: &Spanned<DeValue<'_>>, expected: &toml::Value) {
        let at = Some(self.lines.position(value.span().start));
        match (value.get_ref(), expected) {
            (DeValue::Table(table), toml::Value::Table(expected)) => self.table(path, keys, table, expected),
            (other, toml::Value::Table(_)) => self.problems.push(
                Problem::error(path, format!("{} stands where a section [{path}] belongs", kind_of(other))).at(at),
            ),
            (DeValue::Array(items), toml::Value::Array(expected_items))
                if matches!(expected_items.first(), Some(toml::Value::Table(_))) =>
            {
                let before = self.problems.len();
                let Some(element) = expected_items.first() else { return };
                for (index, item) in items.iter().enumerate() {
                    self.element(path, index, item, element);
                }
                if self.problems.len() == before {
                    self.leaf(path, keys, value, expected);
                }
            }
            (other, toml::Value::Array(expected_items)) if expected_items.iter().any(has_secret) => self
                .problems
                .push(Problem::error(path, format!("{} stands where [[{path}]] tables belong", kind_of(other))).at(at)),
            _ => self.leaf(path, keys, value, expected),
        }
    }

    /// One element of a list of tables: its keys and, for secrets, their type, because the reader's own message
    /// would quote the value.
    fn element(&mut self, path: &str, index: usize, item: &Spanned<DeValue<'_>>, expected: &toml::Value) {
        let at = Some(self.lines.position(item.span().start));
        let (DeValue::Table(table), toml::Value::Table(expected)) = (item.get_ref(), expected) else {
            self.problems
                .push(Problem::error(path, format!("{} stands where a table belongs", kind_of(item.get_ref()))).at(at));
            return;
        };
        if let Some(at) = at {
            self.places.insert(format!("{path}[{index}]"), at);
        }
        for (key, value) in table {
            let name: &str = key.get_ref();
            let here = join(path, name);
            let at = self.lines.position(key.span().start);
            self.places.insert(join(&format!("{path}[{index}]"), name), at);
            match expected.get(name) {
                None => {
                    let hint = self.nearest(path, name, expected);
                    self.problems.push(Problem::error(here, format!("there is no such key; {hint}")).at(Some(at)));
                }
                Some(toml::Value::String(_)) if value.get_ref().as_str().is_none() => {
                    let at = Some(self.lines.position(value.span().start));
                    let found = kind_of(value.get_ref());
                    self.problems.push(Problem::error(here, format!("{found} stands where a text belongs")).at(at));
                }
                Some(toml::Value::String(text)) if text == SECRET => {
                    if !self.substituted.contains(&value.span().start) {
                        self.literal_secret.get_or_insert_with(|| path.to_owned());
                    }
                }
                Some(toml::Value::Array(texts)) if texts.iter().any(has_secret) => self.secrets(path, &here, value),
                Some(_) => {}
            }
        }
    }

    /// A list of secrets, in which nothing but texts may stand: the reader's own message would quote what does.
    fn secrets(&mut self, path: &str, here: &str, value: &Spanned<DeValue<'_>>) {
        let mut wrong = |value: &Spanned<DeValue<'_>>, belongs: &str| {
            let at = Some(self.lines.position(value.span().start));
            let message = format!("{} stands where {belongs} belongs", kind_of(value.get_ref()));
            self.problems.push(Problem::error(here, message).at(at));
        };
        let Some(items) = value.get_ref().as_array() else { return wrong(value, "a list of texts") };
        items.iter().filter(|item| item.get_ref().as_str().is_none()).for_each(|item| wrong(item, "a text"));
        if items.iter().any(|item| !self.substituted.contains(&item.span().start)) {
            self.literal_secret.get_or_insert_with(|| path.to_owned());
        }
    }

    /// Reads one setting on its own: every setting has a default, so a document of one key is a whole one.
    fn leaf(&mut self, path: &str, keys: &[&str], value: &Spanned<DeValue<'_>>, expected: &toml::Value) {
        if self.failed.contains(&value.span().start) {
            return;
        }
        let mut inner = value.clone();
        for key in keys.iter().rev().take(keys.len().saturating_sub(1)) {
            inner = Spanned::new(value.span(), DeValue::Table(single(key, inner)));
        }
        let Some(first) = keys.first() else { return };
        let document = Spanned::new(self.root.clone(), single(first, inner));
        if let Err(error) = Config::deserialize(toml::de::Deserializer::from(document)) {
            let at = error.span().unwrap_or(value.span()).start;
            // As the reader wrote it, before anything is changed in it.
            let mut message = error.message().trim().to_owned();
            for (name, secret) in &self.values {
                hide(secret, &format!("${{{name}}}"), &mut message);
            }
            if has_secret(expected) {
                hide_texts(value, &mut message);
            }
            let mut message = plain(&message);
            if message.contains("socket address") {
                message.push_str("; write an address and a port, as \"127.0.0.1:8081\" or \"[::1]:8081\"");
            }
            // One of the valid values, which are no secret.
            if let Some(near) = meant(error.message()) {
                let _ = write!(message, "; did you mean `{near}`?");
            }
            self.problems.push(Problem::error(path, message).at(Some(self.lines.position(at))));
        }
    }

    /// True when a text below `value` wanted a variable that is not there: everything is said about it.
    fn failed_in(&self, value: &Spanned<DeValue<'_>>) -> bool {
        match value.get_ref() {
            DeValue::String(_) => self.failed.contains(&value.span().start),
            DeValue::Array(items) => items.iter().any(|item| self.failed_in(item)),
            DeValue::Table(table) => table.values().any(|item| self.failed_in(item)),
            _ => false,
        }
    }

    /// The valid key that was probably meant.
    fn nearest(&self, path: &str, name: &str, siblings: &toml::Table) -> String {
        if self.problems.len() >= HINTS_MAX {
            return "this is not a configuration of ours".into();
        }
        let near = |a: &str, b: &str| strsim::damerau_levenshtein(&a.to_lowercase(), b);
        let allowed = 1 + name.chars().take(64).count() / 3;
        let short: String = name.chars().take(64).collect();
        let here = siblings.keys().map(|key| (near(&short, key), join(path, key)));
        // A key in the wrong section is as common as a misspelt one.
        let elsewhere = self.template.iter().flat_map(|(section, value)| {
            let keys = value.as_table().into_iter().flat_map(toml::Table::keys);
            keys.map(move |key| (section, key))
        });
        let elsewhere = elsewhere.map(|(section, key)| (near(&short, key) * 2 + 1, join(section, key)));
        match here.chain(elsewhere).min_by_key(|(distance, _)| *distance) {
            Some((distance, key)) if distance <= allowed => format!("did you mean `{key}`?"),
            _ => {
                let keys: Vec<&str> = siblings.keys().map(String::as_str).collect();
                let place = if path.is_empty() { "sections".to_owned() } else { format!("keys of [{path}]") };
                format!("the {place} are {}", keys.join(", "))
            }
        }
    }
}

/// Problems that get a hint. A file with more is something else, and searching for what each of a million keys
/// might have meant would take minutes.
const HINTS_MAX: usize = 200;

/// Takes out what cannot be used, down to the sections; a list goes as a whole.
fn prune(table: &mut DeTable<'_>, unusable: &HashSet<usize>) {
    let all = std::mem::replace(table, DeTable::new());
    let usable = all.into_iter().filter(|(key, _)| !unusable.contains(&key.span().start));
    *table = usable
        .map(|(key, mut value)| {
            if let DeValue::Table(section) = value.get_mut() {
                prune(section, unusable);
            }
            (key, value)
        })
        .collect();
}

/// What the reader says of a value, in words for those who know configurations and not our types.
fn plain(message: &str) -> String {
    let mut out = message.replace('\n', ", ");
    for (types, words) in [
        (&["usize", "u64", "u32", "u16", "u8"][..], "a whole number, 0 or more"),
        (&["i64", "i32"], "a whole number"),
        (&["a boolean"], "true or false"),
        (&["a sequence"], "a list"),
        (&["a string"], "a text"),
    ] {
        let written = types.iter().map(|name| format!("expected {name}")).find(|name| out.ends_with(name.as_str()));
        if let Some(written) = written {
            out = out.replace(&written, &format!("expected {words}"));
        }
    }
    out
}

/// The value that was probably meant, where the reader says which there are.
fn meant(message: &str) -> Option<&str> {
    let (what, known) = message.split_once(", expected ")?;
    // The words stand between backticks.
    nearest_word(what.strip_prefix("unknown variant `")?.strip_suffix('`')?, known.split('`').skip(1).step_by(2))
}

/// The one of some words that is nearest to what was given, if any is near.
pub(super) fn nearest_word<'a>(given: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let short: String = given.chars().take(64).flat_map(char::to_lowercase).collect();
    let near =
        words.map(|word| (strsim::damerau_levenshtein(&short, word), word)).min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, _)| *distance <= 1 + short.chars().count() / 3).map(|(_, word)| word)
}

/// A table of one key.
fn single<'i>(key: &str, value: Spanned<DeValue<'i>>) -> DeTable<'i> {
    let mut table = DeTable::new();
    table.insert(Spanned::new(value.span(), key.to_owned().into()), value);
    table
}

fn join(path: &str, key: &str) -> String {
    let key: String = key.chars().take(64).flat_map(char::escape_debug).collect();
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Replaces every text of `value` in a message by `***`.
fn hide_texts(value: &Spanned<DeValue<'_>>, message: &mut String) {
    match value.get_ref() {
        DeValue::String(text) => hide(text, SECRET, message),
        DeValue::Array(items) => items.iter().for_each(|item| hide_texts(item, message)),
        DeValue::Table(table) => table.values().for_each(|item| hide_texts(item, message)),
        _ => {}
    }
}

/// Puts `instead` for a text, also as the reader escapes it. A short one is looked for where messages quote something: `a` is
/// in every sentence.
fn hide(text: &str, instead: &str, message: &mut String) {
    for written in [text.to_owned(), text.escape_debug().to_string()] {
        match written.len() {
            0 => {}
            1..HIDDEN_ANYWHERE_BYTES => {
                for quote in ['`', '"'] {
                    *message =
                        message.replace(&format!("{quote}{written}{quote}"), &format!("{quote}{instead}{quote}"));
                }
            }
            _ => *message = message.replace(&written, instead),
        }
    }
}

/// From so many bytes on a text is hidden wherever it stands.
const HIDDEN_ANYWHERE_BYTES: usize = 6;

type Expanded = (String, Vec<(String, String)>);

/// Replaces `${NAME}` by what the environment says, and `$${` by `${`.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, String> {
    let mut out = String::new();
    let mut used = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        let after = &after[2..];
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            return Err("`${` has no `}`; write `$${` for the characters themselves".into());
        };
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(
                "`${…}` holds no name of an environment variable; write `$${` for the characters themselves".into()
            );
        }
        let Some(value) = env(name) else {
            return Err(format!("the environment variable {name} is not set"));
        };
        out.push_str(&value);
        used.push((name.to_owned(), value));
        rest = tail;
    }
    out.push_str(rest);
    Ok((out, used))
}

/// Turns offsets into lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Position { line, column }
    }
}
