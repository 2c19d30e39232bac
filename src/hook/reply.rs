//! What a back end's response says, read strictly: it is a yes or a no, or it is a failure.
//!
//! Whatever is not understood is a failure and never a yes. Unknown members are passed over, but they are read: a
//! document that is broken somewhere is broken.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::admission::{Answer, AtLimit, Failure, Terms};
use crate::names::Name;
use crate::session::Labels;

/// The deepest that a document may nest.
pub const DEPTH_MAX: usize = 16;
/// The longest that an answer is remembered, or goes without being asked for again.
pub const TTL_MAX: Duration = Duration::from_hours(24);
/// The longest name of a user, and the longest text for one, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// The longest address to go to instead, in bytes.
pub const REDIRECT_BYTES_MAX: usize = 1_024;
/// Labels of one session.
pub const LABELS_MAX: usize = 16;
/// The longest name or value of a label, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// Asking again faster than this is a flood.
const RECHECK_MIN: Duration = Duration::from_secs(1);

/// A response as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status.
    pub status: u16,
    /// Its `Content-Encoding`, when there is one.
    pub encoding: Option<&'a [u8]>,
    /// The whole body.
    pub body: &'a [u8],
}

/// What a status says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Yes,
    No,
    Neither,
}

/// Reads an answer.
#[must_use]
pub fn read(response: &Response<'_>) -> Answer {
    let Response { status, encoding, body } = *response;
    let says = match status {
        200 | 204 => Says::Yes,
        // Too early, too many, too slow: not a word about the peer.
        408 | 425 | 429 => Says::Neither,
        400..=499 => Says::No,
        _ => Says::Neither,
    };
    let plain = encoding.is_none_or(|encoding| encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity"));
    match says {
        Says::Neither => Answer::Failure(Failure::Status(status)),
        // A no is a no, whatever its body is; a body that reads may say more about it.
        Says::No => match document(body).ok().filter(|_| plain) {
            Some(document) => document.deny(),
            None => Answer::Deny { text: None, redirect: None, cache_for: None },
        },
        Says::Yes if !plain => Answer::Failure(Failure::Malformed("compressed")),
        Says::Yes if body.is_empty() => Answer::Allow(Box::default()),
        Says::Yes => {
            document(body).and_then(Document::answer).unwrap_or_else(|rule| Answer::Failure(Failure::Malformed(rule)))
        }
    }
}

/// The members that are known, of the right types and within their limits.
#[derive(Default)]
struct Document {
    allow: Option<bool>,
    terms: Terms,
    text: Option<Box<str>>,
    redirect: Option<Box<str>>,
}

impl Document {
    fn answer(self) -> Result<Answer, &'static str> {
        match self.allow {
            Some(true) => Ok(Answer::Allow(Box::new(self.terms))),
            Some(false) => Ok(self.deny()),
            // Who takes the trouble to write a document says it: a misspelt `allow` must not admit anybody.
            None => Err("allow"),
        }
    }

    fn deny(self) -> Answer {
        Answer::Deny { text: self.text, redirect: self.redirect, cache_for: self.terms.cache_for }
    }
}

/// Reads a document, or names the rule that it broke.
fn document(body: &[u8]) -> Result<Document, &'static str> {
    check_depth(body)?;
    let broken = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let document = Any(Top { broken: &broken }).deserialize(&mut reader);
    match (document, broken.get()) {
        (Ok(document), None) => reader.end().map(|()| document).map_err(|_| "json"),
        (_, Some(rule)) => Err(rule),
        (Err(_), None) => Err("json"),
    }
}

/// Refuses what nests too deep, before anything that calls itself reads it.
fn check_depth(body: &[u8]) -> Result<(), &'static str> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth = depth.saturating_add(1);
                if depth > DEPTH_MAX {
                    return Err("depth");
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Where the rule that was broken is noted: the reader's own errors are sentences.
type Broken<'a> = &'a Cell<Option<&'static str>>;

fn fail<E: de::Error>(broken: Broken<'_>, rule: &'static str) -> E {
    broken.set(Some(broken.get().unwrap_or(rule)));
    E::custom(rule)
}

/// The document: an object.
struct Top<'a> {
    broken: Broken<'a>,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let broken = self.broken;
        let mut document = Document::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let terms = &mut document.terms;
            match key.as_str() {
                "allow" => document.allow = Some(map.next_value_seed(Any(Flag(broken)))?),
                "user" => {
                    let text = optional(&mut map, Text(broken, "user"))?;
                    terms.user = text.map(|text| user(broken, text)).transpose()?.flatten();
                }
                "labels" => terms.labels = optional(&mut map, LabelsOf(broken))?.unwrap_or_default(),
                "app" => terms.app = name(&mut map, broken, "app", Name::app)?,
                "stream" => terms.stream = name(&mut map, broken, "stream", Name::stream)?,
                "expires_unix_ms" => terms.expires_unix_ms = optional(&mut map, Number(broken, "expires_unix_ms"))?,
                "recheck_every_ms" => {
                    let every = optional(&mut map, Number(broken, "recheck_every_ms"))?.map(clamped);
                    if every.is_some_and(|every| every < RECHECK_MIN) {
                        return Err(fail(broken, "recheck_every_ms"));
                    }
                    terms.recheck_every = every;
                }
                "cache_for_ms" => terms.cache_for = optional(&mut map, Number(broken, "cache_for_ms"))?.map(clamped),
                "sessions_max" => {
                    terms.sessions_max = optional(&mut map, Number(broken, "sessions_max"))?
                        .map(|most| u32::try_from(most).unwrap_or(u32::MAX));
                }
                "at_limit" => {
                    terms.at_limit = match optional(&mut map, Text(broken, "at_limit"))?.as_deref() {
                        None => None,
                        Some("reject_new") => Some(AtLimit::RejectNew),
                        Some("evict_oldest") => Some(AtLimit::EvictOldest),
                        Some(_) => return Err(fail(broken, "at_limit")),
                    };
                }
                "duration_max_ms" => {
                    terms.duration_max =
                        optional(&mut map, Number(broken, "duration_max_ms"))?.map(Duration::from_millis);
                }
                "publish_bps_max" => terms.publish_bps_max = optional(&mut map, Number(broken, "publish_bps_max"))?,
                "text" => document.text = optional(&mut map, Text(broken, "text"))?.and_then(|text| cleaned(&text)),
                "redirect" => {
                    document.redirect = optional(&mut map, Text(broken, "redirect"))?;
                    let bad = |text: &str| {
                        text.len() > REDIRECT_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic())
                    };
                    if document.redirect.as_deref().is_some_and(bad) {
                        return Err(fail(broken, "redirect"));
                    }
                }
                _ => map.next_value_seed(Any(Skip(broken)))?,
            }
            if !seen.insert(key) {
                return Err(fail(broken, "duplicate_key"));
            }
        }
        Ok(document)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Document, E> {
        Err(fail(self.broken, "top_level"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Document, E> {
        Err(fail(self.broken, "top_level"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Document, E> {
        Err(fail(self.broken, "top_level"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Document, E> {
        Err(fail(self.broken, "top_level"))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Document, E> {
        Err(fail(self.broken, "top_level"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Document, E> {
        Err(fail(self.broken, "top_level"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Document, A::Error> {
        Err(fail(self.broken, "top_level"))
    }
}

/// A member that may be null, which means the same as leaving it out.
fn optional<'de, A: MapAccess<'de>, V: Visitor<'de>>(map: &mut A, visitor: V) -> Result<Option<V::Value>, A::Error> {
    map.next_value_seed(Any(OrNull(visitor)))
}

fn name<'de, A: MapAccess<'de>>(
    map: &mut A,
    broken: Broken<'_>,
    field: &'static str,
    validate: fn(&str) -> Result<Name, crate::names::NameError>,
) -> Result<Option<Name>, A::Error> {
    let text = optional(map, Text(broken, field))?;
    text.map(|text| validate(&text).map_err(|_| fail(broken, field))).transpose()
}

/// A user is a key that limits and bans go by, so it is taken as it is or not at all; an empty one is none.
fn user<E: de::Error>(broken: Broken<'_>, text: Box<str>) -> Result<Option<Box<str>>, E> {
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(fail(broken, "user"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Words for people: cut to their length, without control characters.
fn cleaned(text: &str) -> Option<Box<str>> {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len().saturating_add(c.len_utf8()) > TEXT_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    (!out.is_empty()).then(|| out.into())
}

fn clamped(ms: u64) -> Duration {
    Duration::from_millis(ms).min(TTL_MAX)
}

/// Reads whatever comes, and lets its visitor say whether that is right.
struct Any<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Any<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        from.deserialize_any(self.0)
    }
}

/// Whatever its inner visitor reads, or null.
struct OrNull<V>(V);

/// Refuses every type but those that are written out for it.
macro_rules! refuse {
    ($lifetime:lifetime, $($method:ident($($argument:ty)?)),*) => {$(
        fn $method<E: de::Error>(self $(, _: $argument)?) -> Result<Self::Value, E> {
            Err(self.wrong())
        }
    )*};
    (containers $lifetime:lifetime) => {
        refuse!(seq $lifetime);
        fn visit_map<A: MapAccess<$lifetime>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(self.wrong())
        }
    };
    (seq $lifetime:lifetime) => {
        fn visit_seq<A: SeqAccess<$lifetime>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(self.wrong())
        }
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for OrNull<V> {
    type Value = Option<V::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.0.visit_bool(value).map(Some)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.0.visit_u64(value).map(Some)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.0.visit_i64(value).map(Some)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.0.visit_f64(value).map(Some)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.0.visit_str(value).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.0.visit_seq(seq).map(Some)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.0.visit_map(map).map(Some)
    }
}

/// True or false. Null is neither.
struct Flag<'a>(Broken<'a>);

impl Flag<'_> {
    fn wrong<E: de::Error>(&self) -> E {
        fail(self.0, "allow")
    }
}

impl<'de> Visitor<'de> for Flag<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }

    refuse!('de, visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_str(&str), visit_unit());
    refuse!(containers 'de);
}

/// A whole number that is not negative.
struct Number<'a>(Broken<'a>, &'static str);

impl Number<'_> {
    fn wrong<E: de::Error>(&self) -> E {
        fail(self.0, self.1)
    }
}

impl<'de> Visitor<'de> for Number<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    refuse!('de, visit_bool(bool), visit_i64(i64), visit_f64(f64), visit_str(&str), visit_unit());
    refuse!(containers 'de);
}

/// A string.
struct Text<'a>(Broken<'a>, &'static str);

impl Text<'_> {
    fn wrong<E: de::Error>(&self) -> E {
        fail(self.0, self.1)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Box<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Box<str>, E> {
        Ok(value.into())
    }

    refuse!('de, visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_unit());
    refuse!(containers 'de);
}

/// An object of strings.
struct LabelsOf<'a>(Broken<'a>);

impl LabelsOf<'_> {
    fn wrong<E: de::Error>(&self) -> E {
        fail(self.0, "labels")
    }
}

impl<'de> Visitor<'de> for LabelsOf<'_> {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels: Vec<(Box<str>, Box<str>)> = Vec::new();
        let good = |text: &str| text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control);
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Any(Text(self.0, "labels")))?;
            if labels.len() == LABELS_MAX || key.is_empty() || !good(&key) || !good(&value) {
                return Err(self.wrong());
            }
            if labels.iter().any(|(other, _)| **other == *key) {
                return Err(fail(self.0, "duplicate_key"));
            }
            labels.push((key.into(), value));
        }
        Ok(labels.into())
    }

    refuse!('de, visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_str(&str), visit_unit());
    refuse!(seq 'de);
}

/// Anything, read and let go. It calls itself, as deep as [`check_depth`] let through.
struct Skip<'a>(Broken<'a>);

impl<'de> Visitor<'de> for Skip<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Any(Skip(self.0)))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key) {
                return Err(fail(self.0, "duplicate_key"));
            }
            map.next_value_seed(Any(Skip(self.0)))?;
        }
        Ok(())
    }
}
