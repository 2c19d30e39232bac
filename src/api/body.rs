//! JSON bodies, read strictly: one value, nothing after it, no name twice, bounded in size and depth.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::api::{Problem, query};

/// The most bytes of a body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// How deep a body may nest.
pub const DEPTH_MAX: usize = 32;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON value in which no object has a name twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A whole number that is not negative.
    Whole(u64),
    /// Text.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object, in the order of the text.
    Object(Vec<(String, Value)>),
}

/// Reads the JSON object that `request` carries.
///
/// # Errors
/// 415 for another content type, 413 for a body too long, 408 for one too slow, 400 for what is not one object.
pub async fn read(request: Request) -> Result<Object, Problem> {
    let (parts, body) = request.into_parts();
    require_json(&parts.headers)?;
    let bytes = collect(&parts.headers, body).await?;
    let value = parse(&bytes)?;
    Object::new("", value)
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let is_json = match (types.next(), types.next()) {
        (Some(one), None) => one.to_str().is_ok_and(|text| {
            let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
            let charset = parameters.trim().to_ascii_lowercase();
            essence.trim().eq_ignore_ascii_case("application/json")
                && matches!(charset.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"")
        }),
        _ => false,
    };
    if is_json {
        return Ok(());
    }
    let detail = "the body must be application/json";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail).about("Content-Type"))
}

async fn collect(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let too_long = || {
        let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-long", detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-body", "the body ended early")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "the body took too long")),
    }
}

/// Reads one JSON value.
///
/// # Errors
/// 400 with the place.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let broken = |error: serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, "invalid-body", error.to_string());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: DEPTH_MAX }.deserialize(&mut deserializer).map_err(broken)?;
    deserializer.end().map_err(broken)?;
    Ok(value)
}

/// An object whose members are taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub struct Object {
    path: String,
    members: Vec<(String, Value)>,
    known: Vec<&'static str>,
}

impl Object {
    fn new(path: &str, value: Value) -> Result<Self, Problem> {
        match value {
            Value::Object(members) => Ok(Self { path: path.to_owned(), members, known: Vec::new() }),
            _ if path.is_empty() => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-body", "the body must be a JSON object"))
            }
            _ => Err(Problem::body(path, "this must be an object")),
        }
    }

    /// Where a member is, for messages.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The member `name`.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        let at = self.members.iter().position(|(other, _)| other == name)?;
        Some(self.members.remove(at).1)
    }

    /// The member `name`, an object.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub fn take_object(&mut self, name: &'static str) -> Result<Option<Self>, Problem> {
        let field = self.field(name);
        self.take(name).map(|value| Self::new(&field, value)).transpose()
    }

    /// The member `name`, a text.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub fn take_text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::body(self.field(name), "this must be a string")),
        }
    }

    /// The member `name`, true or false.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub fn take_flag(&mut self, name: &'static str) -> Result<Option<bool>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(Problem::body(self.field(name), "this must be true or false")),
        }
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// 400 naming the first unknown member, with the nearest known.
    pub fn finish(self) -> Result<(), Problem> {
        match self.members.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Problem::body(query::shorten(&self.field(name)), query::unknown(name, self.known.iter().copied())))
            }
        }
    }
}

struct Strict {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl Strict {
    fn deeper<E: de::Error>(&self) -> Result<usize, E> {
        self.depth.checked_sub(1).ok_or_else(|| E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")))
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Whole(value))
    }

    #[allow(clippy::cast_precision_loss)] // A negative number is refused wherever it stands.
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = from.next_element_seed(Strict { depth })? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut members: Vec<(String, Value)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = from.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format_args!("`{}` is there twice", query::shorten(&name))));
            }
            let value = from.next_value_seed(Strict { depth })?;
            members.push((name, value));
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ap_09_depth_duplicates_and_trailing_data_are_refused() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(1 << 20).as_bytes()).is_err());
        assert!(parse(br#"{"a":1,"a":2}"#).unwrap_err().detail.contains("twice"));
        assert!(parse(br#"{"a":{"b":1,"b":1}}"#).is_err());
        assert!(parse(br#"{"a":1} x"#).is_err());
        assert!(parse(b"").is_err());
        assert!(parse(b"\xff").is_err());
    }

    #[test]
    fn an_unknown_member_is_named_with_its_path() {
        let mut object = Object::new("", parse(br#"{"filter":{"ap":"live"}}"#).unwrap()).unwrap();
        let mut filter = object.take_object("filter").unwrap().unwrap();
        assert_eq!(filter.take_text("app").unwrap(), None);
        let problem = filter.finish().unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("filter.ap"));
        assert!(problem.detail.contains("`app`"));
    }
}
