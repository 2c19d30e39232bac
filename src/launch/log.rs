//! The log: lines made where something happens, written by a thread of their own.
//!
//! A line is made on the thread that has something to say and handed over through a bounded queue, so that a
//! blocked standard error costs lines and never time. Lines lost are counted, and the count is told as soon as
//! there is room again.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogSettings;
use crate::config::log::{Format, parse_level};

/// The longest text of one field. Peers choose some of them.
const FIELD_BYTES_MAX: usize = 256;
/// The longest sentence: our own words, panic messages, and the last events of a session.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// Keeps the log running; dropping it writes what waits, for a second at most.
pub struct Log {
    _guard: WorkerGuard,
    level: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Writes at the level of other settings from now on. Their other keys need a restart.
    pub fn set_level(&self, settings: &LogSettings) {
        // The settings were checked, and the log lives as long as this.
        if let Ok(targets) = targets(settings) {
            let _ = self.level.reload(targets);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Nobody reads the log any more, so panics speak for themselves again. A thread that panics may not change
        // the hook; then the process ends anyway.
        if !std::thread::panicking() {
            drop(panic::take_hook());
        }
    }
}

/// Starts the log on standard error. Until the log is dropped, panics are lines of it.
///
/// # Errors
/// When the level cannot be read, or a log was started before.
pub fn start(settings: &LogSettings) -> Result<Log, String> {
    let (writer, guard) = writer(settings, io::stderr());
    let (filter, level) = reload::Layer::new(targets(settings)?);
    tracing_subscriber::registry()
        .with(Lines::new(settings.format, writer).with_filter(filter))
        .try_init()
        .map_err(|error| error.to_string())?;
    panic::set_hook(Box::new(say_panic));
    Ok(Log { _guard: guard, level })
}

/// Writes a panic as one line: which thread, where in the source, and the message, which may hold what a peer sent
/// and is cleaned as every text is.
fn say_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("the payload is not a text");
    tracing::error!(ev = "panic", thread = thread.name().unwrap_or("unnamed"), at, "{message}");
}

/// A level without a part is ours: what libraries say below `info` is said to those who build on them, at every request,
/// and is heard by whoever names them.
fn targets(settings: &LogSettings) -> Result<Targets, String> {
    let targets = parse_level(&settings.level)?.parse::<Targets>().map_err(|error| error.to_string())?;
    let Some(level) = targets.default_level().filter(|level| *level > LevelFilter::INFO) else { return Ok(targets) };
    let is_named = targets.iter().any(|(target, _)| target == OURS);
    let targets = targets.with_default(LevelFilter::INFO);
    Ok(if is_named { targets } else { targets.with_target(OURS, level) })
}

/// What the names of all our parts begin with.
const OURS: &str = "sluicegate";

fn writer(settings: &LogSettings, to: impl io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(settings.lines_max).lossy(true).thread_name("log").finish(to)
}

/// Turns events into lines.
struct Lines {
    format: Format,
    writer: NonBlocking,
    lost: ErrorCounter,
    /// How many of the lines lost were told.
    told: AtomicUsize,
}

impl Lines {
    fn new(format: Format, writer: NonBlocking) -> Self {
        let lost = writer.error_counter();
        Self { format, writer, lost, told: AtomicUsize::new(0) }
    }

    fn write(&self, level: Level, target: &str, fields: &Fields) {
        let mut line = match self.format {
            Format::Human => human(level, target, fields),
            Format::Json => json(level, target, fields),
        };
        line.push('\n');
        // The queue counts what does not fit, so the result says nothing.
        let _ = self.writer.clone().write_all(line.as_bytes());
    }

    /// Says how many lines were lost since the last time. If that line is lost too, the count has grown by it and
    /// the next line tries again.
    fn tell_lost(&self) {
        let lost = self.lost.dropped_lines();
        let told = self.told.load(Ordering::Relaxed);
        if lost > told && self.told.compare_exchange(told, lost, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let mut fields = Fields::default();
            fields.push("message", Value::Text("log lines were lost because nobody read them in time".into()));
            fields.push("ev", Value::Text("log_lost".into()));
            fields.push("lines", Value::Whole(i128::try_from(lost - told).unwrap_or(i128::MAX)));
            fields.push("lines_total", Value::Whole(i128::try_from(lost).unwrap_or(i128::MAX)));
            self.write(Level::WARN, module_path!(), &fields);
            // Those that were just lost in telling it are told the next time.
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        // Made before the lock is taken: a value that panics while it is written would be told by an event inside
        // this very span, which reads what the lock guards.
        let mut fresh = Fields::default();
        values.record(&mut fresh);
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            for (name, value) in fresh.0 {
                fields.push(name, value);
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        // What the event says itself stands over what its spans say, and inner spans over outer ones.
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.0 {
                    if !fields.0.iter().any(|(known, _)| known == name) {
                        fields.0.push((name, value.clone()));
                    }
                }
            }
        }
        let target = match fields.take("log.target") {
            Some(Value::Text(target)) => target,
            _ => event.metadata().target().to_owned(),
        };
        self.write(*event.metadata().level(), &target, &fields);
        self.tell_lost();
    }
}

/// What is said beside the sentence.
#[derive(Clone, Debug, Default)]
struct Fields(Vec<(&'static str, Value)>);

#[derive(Clone, Debug)]
enum Value {
    Whole(i128),
    Fraction(f64),
    Flag(bool),
    Text(String),
}

impl Fields {
    fn push(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(at).1)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).and_then(|(_, value)| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Everything but the sentence, and what the `log` crate's bridge adds about source files.
    fn rest(&self) -> impl Iterator<Item = &(&'static str, Value)> {
        self.0.iter().filter(|(name, _)| *name != "message" && !name.starts_with("log."))
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field.name(), Value::Fraction(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), Value::Whole(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field.name(), Value::Whole(value.into()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.push(field.name(), Value::Whole(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.push(field.name(), Value::Whole(i128::try_from(value).unwrap_or(i128::MAX)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), Value::Flag(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field.name(), Value::Text(clean(value, limit(field))));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field.name(), Value::Text(clean(&format!("{value:?}"), limit(field))));
    }
}

fn limit(field: &Field) -> usize {
    if field.name() == "message" { MESSAGE_BYTES_MAX } else { FIELD_BYTES_MAX }
}

/// Without control characters, which could begin a line of their own or steer a terminal, and cut to `limit` bytes.
fn clean(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        // Separators of lines and marks of direction are not `control` in Unicode's words and do the same harm.
        let c = match c {
            '\n' | '\t' => ' ',
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => continue,
            c if c.is_control() => continue,
            c => c,
        };
        if out.len() + c.len_utf8() > limit {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

fn human(level: Level, target: &str, fields: &Fields) -> String {
    let mut line = now();
    let _ = write!(line, " {level:>5} {}", fields.get("message").or_else(|| fields.get("ev")).unwrap_or(target));
    for (name, value) in fields.rest() {
        let _ = match value {
            Value::Whole(number) => write!(line, " {name}={number}"),
            Value::Fraction(number) => write!(line, " {name}={number}"),
            Value::Flag(flag) => write!(line, " {name}={flag}"),
            Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=']) => write!(line, " {name}={text:?}"),
            Value::Text(text) => write!(line, " {name}={text}"),
        };
    }
    line
}

/// One object: `ts`, `lvl`, `ev` (the event's name, or the sentence where it has none), then the fields in the order
/// they were given. `msg` is the sentence when there is a name too.
fn json(level: Level, target: &str, fields: &Fields) -> String {
    let mut object = serde_json::Map::new();
    let text = |text: &str| serde_json::Value::String(text.to_owned());
    let lower = level.as_str().to_ascii_lowercase();
    let message = fields.get("message");
    object.insert("ts".into(), text(&now()));
    object.insert("lvl".into(), text(&lower));
    object.insert("ev".into(), text(fields.get("ev").or(message).unwrap_or(target)));
    if let (Some(_), Some(message)) = (fields.get("ev"), message) {
        object.insert("msg".into(), text(message));
    }
    object.insert("target".into(), text(target));
    for (name, value) in fields.rest().filter(|(name, _)| *name != "ev") {
        let value = match value {
            Value::Whole(number) => i64::try_from(*number)
                .map(serde_json::Value::from)
                .or_else(|_| u64::try_from(*number).map(serde_json::Value::from))
                .unwrap_or_else(|_| text(&number.to_string())),
            Value::Fraction(number) => serde_json::Value::from(*number),
            Value::Flag(flag) => serde_json::Value::Bool(*flag),
            Value::Text(value) => text(value),
        };
        object.insert((*name).to_owned(), value);
    }
    serde_json::Value::Object(object).to_string()
}

fn now() -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Condvar, Mutex};

    /// A reader of lines that can be made to stop reading, as a full pipe does.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<State>, Condvar)>);

    /// Whether reading is blocked, and what was read.
    type State = (bool, Vec<u8>);

    impl Pipe {
        fn block(&self, blocked: bool) {
            self.0.0.lock().unwrap().0 = blocked;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl io::Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.1.wait_while(self.0.0.lock().unwrap(), |(blocked, _)| *blocked).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: &LogSettings, pipe: &Pipe, act: impl FnOnce()) -> Vec<String> {
        let (writer, guard) = writer(settings, pipe.clone());
        let lines = Lines::new(settings.format, writer).with_filter(targets(settings).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), act);
        drop(guard);
        pipe.text().lines().map(str::to_owned).collect()
    }

    fn json_settings() -> LogSettings {
        LogSettings { format: Format::Json, ..LogSettings::default() }
    }

    #[test]
    fn a_json_line_has_the_fixed_fields_and_the_session_of_its_span() {
        let lines = logged(&json_settings(), &Pipe::default(), || {
            let span = tracing::info_span!("session", sid = "0197", proto = "rtmp", reason = tracing::field::Empty);
            span.record("reason", "kicked");
            let _entered = span.enter();
            tracing::info!(ev = "session_closed", bytes_in = 5_u64, ok = true, "the session ended");
            tracing::warn!(sid = "own", "a sentence alone");
        });
        let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let first = of(&lines[0]);
        for (name, value) in [
            ("lvl", serde_json::json!("info")),
            ("ev", "session_closed".into()),
            ("msg", "the session ended".into()),
            ("sid", "0197".into()),
            ("proto", "rtmp".into()),
            ("reason", "kicked".into()),
            ("bytes_in", 5.into()),
            ("ok", true.into()),
        ] {
            assert_eq!(first[name], value, "{name}");
        }
        assert!(first["ts"].as_str().unwrap().ends_with('Z'));
        let second = of(&lines[1]);
        assert_eq!((&second["ev"], &second["sid"]), (&"a sentence alone".into(), &"own".into()));
    }

    #[test]
    fn text_of_a_peer_cannot_begin_a_line_or_steer_a_terminal() {
        let evil = format!("a\nINFO forged\u{1b}[2J\u{202e}\r{}", "x".repeat(1_000));
        for format in [Format::Human, Format::Json] {
            let settings = LogSettings { format, ..LogSettings::default() };
            let lines = logged(&settings, &Pipe::default(), || tracing::info!(stream = %evil, "published"));
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(!lines[0].contains(['\u{1b}', '\r', '\u{202e}']), "{lines:?}");
            assert!(lines[0].len() < 512, "{}", lines[0].len());
        }
    }

    /// Runs `act` with this thread's panics told to the log; those of other tests go where they went.
    fn telling_panics(act: impl FnOnce()) {
        let here = std::thread::current().id();
        let before = panic::take_hook();
        panic::set_hook(Box::new(
            move |info| {
                if std::thread::current().id() == here { say_panic(info) } else { before(info) }
            },
        ));
        act();
        drop(panic::take_hook());
    }

    #[test]
    fn a_panic_is_one_line_with_thread_place_and_message() {
        /// Panics when it is written, as a `Debug` of ours might.
        struct Broken;
        impl fmt::Debug for Broken {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("written badly")
            }
        }
        let lines = logged(&json_settings(), &Pipe::default(), || {
            telling_panics(|| {
                let span = tracing::info_span!("session", sid = "0197", reason = tracing::field::Empty);
                let _entered = span.enter();
                let evil = "a\nforged\u{1b}[2J";
                panic::catch_unwind(|| panic!("no such message: {evil}")).unwrap_err();
                panic::catch_unwind(|| panic::panic_any(7)).unwrap_err();
                let record = panic::AssertUnwindSafe(|| span.record("reason", tracing::field::debug(Broken)));
                panic::catch_unwind(record).unwrap_err();
            });
        });
        let of = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let lines: Vec<serde_json::Value> = lines.iter().map(of).collect();
        let said: Vec<_> = lines.iter().map(|line| line["msg"].as_str().unwrap()).collect();
        assert_eq!(said, ["no such message: a forged[2J", "the payload is not a text", "written badly"]);
        for line in &lines {
            assert_eq!((&line["ev"], &line["lvl"], &line["sid"]), (&"panic".into(), &"error".into(), &"0197".into()));
            assert!(line["at"].as_str().unwrap().contains("log.rs:"), "{line}");
            assert_eq!(line["thread"], std::thread::current().name().unwrap());
        }
    }

    #[test]
    fn levels_of_parts_are_obeyed() {
        let settings = LogSettings { level: "warn,loud=debug".into(), ..LogSettings::default() };
        let lines = logged(&settings, &Pipe::default(), || {
            tracing::info!("unheard");
            tracing::debug!(target: "loud", "heard");
            tracing::warn!("heard too");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn debug_is_about_the_server_and_not_about_its_libraries() {
        let heard = |level: &str| {
            let settings = LogSettings { level: level.into(), ..LogSettings::default() };
            let lines = logged(&settings, &Pipe::default(), || {
                tracing::debug!("ours");
                tracing::trace!("traced");
                tracing::debug!(target: "hyper_util::client", "theirs");
                tracing::info!(target: "hyper_util::client", "worth it");
            });
            let words = ["ours", "traced", "theirs", "worth it"];
            words.map(|word| lines.iter().any(|line| line.contains(word)))
        };
        assert_eq!(heard("info"), [false, false, false, true]);
        assert_eq!(heard("debug"), [true, false, false, true]);
        assert_eq!(heard("trace"), [true, true, false, true]);
        assert_eq!(heard("debug,hyper_util=debug"), [true, false, true, true]);
        assert_eq!(heard("debug,sluicegate=warn"), [false, false, false, true]);
        assert_eq!(heard("warn"), [false; 4]);
    }

    #[test]
    fn fa_34_blocked_log_drops_and_counts_and_never_blocks() {
        let pipe = Pipe::default();
        pipe.block(true);
        let settings = LogSettings { lines_max: 64, ..json_settings() };
        let total = 10_000;
        let lines = logged(&settings, &pipe, || {
            for number in 0..total {
                tracing::info!(number, "line");
            }
            // All of them were said although nobody reads. Now somebody does.
            pipe.block(false);
            while pipe.text().lines().count() < 65 {
                std::thread::yield_now();
            }
            tracing::info!("after");
            // That line found room; it made the count be told.
            while !pipe.text().contains("log_lost") {
                std::thread::yield_now();
                tracing::info!("after");
            }
        });
        let told: u64 = lines
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|line| line["ev"] == "log_lost")
            .filter_map(|line| line["lines_total"].as_u64())
            .max()
            .unwrap();
        let written = lines.iter().filter(|line| line.contains("\"line\"")).count() as u64;
        assert!(told >= total - written, "{told} told, {written} written");
        assert!(written < 1_000, "{written}");
    }
}
