//! Reading commands: what `connect`, `publish` and `play` say, believed only as far as it is typed.

use super::{ConnectInfo, Refusal};
use crate::names::{APP_BYTES_MAX, STREAM_BYTES_MAX};
use crate::proto::rtmp::amf0::{self, Value};

/// Longest query of an app or stream, in bytes (`http.query`, which RTMP shares).
const QUERY_BYTES_MAX: usize = 2 << 10;
/// Most parameters of a query.
const QUERY_PARAMETERS_MAX: usize = 32;
/// Longest `tcUrl`, in bytes.
const TC_URL_BYTES_MAX: usize = 2 << 10;
/// Longest of the other texts of `connect`, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Most codecs that `fourCcList` may name.
const FOUR_CC_MAX: usize = 64;

/// `NetConnection.Connect.InvalidApp`, said to a peer that names no application.
const NO_APP: Refusal = Refusal {
    code: "NetConnection.Connect.InvalidApp",
    description: "No application is named, neither by app nor by tcUrl.",
};
const BAD_APP: Refusal =
    Refusal { code: "NetConnection.Connect.InvalidApp", description: "The application's name is not a valid name." };
const BAD_TC_URL: Refusal =
    Refusal { code: "NetConnection.Connect.Rejected", description: "tcUrl is longer than 2048 bytes." };
/// Said to a `connect` whose values cannot be read.
pub(super) const UNREADABLE_CONNECT: Refusal =
    Refusal { code: "NetConnection.Connect.Rejected", description: "The connect command cannot be read." };

/// Why a name with its query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameProblem {
    /// Not a string, not UTF-8, a NUL inside, empty, or longer than its field.
    Name,
    /// The query has too many bytes or parameters, or says `token`, `expires` or `sign` twice.
    Query,
}

impl NameProblem {
    /// The rule that was broken.
    pub(super) fn rule(self) -> &'static str {
        match self {
            Self::Name => "stream_name",
            Self::Query => "stream_query",
        }
    }

    /// What the peer's user reads.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Name => "The stream's name is not a valid name.",
            Self::Query => "The stream's query is too long or says a parameter twice.",
        }
    }
}

/// One command as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Its name.
    pub(super) name: String,
    /// The transaction id, kept as the number's bits (RT-45); zero asks for no answer.
    pub(super) transaction: f64,
    /// The command object and what follows.
    pub(super) args: Vec<Value>,
    /// The values after the name and transaction are not whole.
    pub(super) is_broken: bool,
}

impl Call {
    /// Reads a command's body; `None` when not even its name is readable.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut reader = amf0::Reader::new(body);
        let name = reader.next_value().ok().flatten()?.as_str()?.to_owned();
        let mut call = Self { name, ..Self::default() };
        match reader.next_value() {
            Ok(Some(Value::Number(transaction))) => call.transaction = transaction,
            // A transaction that is no number cannot be echoed as one; the command is read on without.
            Ok(_) => {}
            Err(_) => call.is_broken = true,
        }
        while !call.is_broken {
            match reader.next_value() {
                Ok(Some(value)) => call.args.push(value),
                Ok(None) => break,
                Err(_) => call.is_broken = true,
            }
        }
        Some(call)
    }

    /// The argument at `index`, where 0 is the command object.
    pub(super) fn arg(&self, index: usize) -> Option<&Value> {
        self.args.get(index)
    }

    /// A boolean argument.
    pub(super) fn flag(&self, index: usize) -> Option<bool> {
        match self.arg(index) {
            Some(Value::Boolean(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// The message stream id that an argument names.
    pub(super) fn stream_id(&self, index: usize) -> Option<u32> {
        let number = self.arg(index)?.as_number()?;
        // Comparison with the whole range tells NaN, fractions and what an id cannot be.
        (1..=super::STREAMS_MAX).find(|id| f64::from(*id).to_bits() == number.to_bits())
    }
}

/// What `connect` asks of the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ConnectCall {
    /// Echoed in the answer.
    pub(super) transaction: f64,
    /// `objectEncoding` as it is echoed: 0 or 3.
    pub(super) object_encoding: f64,
    /// The peer speaks Enhanced RTMP.
    pub(super) is_enhanced: bool,
}

/// Reads the command object of `connect`.
pub(super) fn read_connect(call: &Call) -> Result<(ConnectInfo, ConnectCall), Refusal<'static>> {
    if call.is_broken {
        return Err(UNREADABLE_CONNECT);
    }
    let empty = Value::Null;
    let object = call.arg(0).unwrap_or(&empty);
    let tc_url = object.get("tcUrl").and_then(Value::as_str);
    if tc_url.is_some_and(|url| url.len() > TC_URL_BYTES_MAX) {
        return Err(BAD_TC_URL);
    }
    let target = tc_url.map(Target::read).unwrap_or_default();
    let (app, query) = match object.get("app") {
        None | Some(Value::Null | Value::Undefined) => (target.path, None),
        Some(app) => split_query(app.as_str().ok_or(BAD_APP)?),
    };
    // Encoders leave a slash at the end when their user wrote one into the URL.
    let app = app.trim_matches('/');
    if app.is_empty() {
        return Err(NO_APP);
    }
    if app.len() > APP_BYTES_MAX {
        return Err(BAD_APP);
    }
    let query = query.or(target.query);
    if query.is_some_and(|query| !is_query_acceptable(query)) {
        return Err(Refusal {
            code: "NetConnection.Connect.Rejected",
            description: "The query of the application is too long or says a parameter twice.",
        });
    }
    let vhost = query.and_then(|query| query_value(query, "vhost")).or(target.host);
    let text = |key: &str| {
        object.get(key).and_then(Value::as_str).filter(|text| text.len() <= TEXT_BYTES_MAX).map(ToOwned::to_owned)
    };
    let number = |key: &str| object.get(key).and_then(Value::as_number);
    let four_cc_list = match object.get("fourCcList") {
        Some(Value::StrictArray(items)) => items
            .iter()
            .filter_map(Value::as_str)
            .filter(|code| code.len() <= 4)
            .take(FOUR_CC_MAX)
            .map(ToOwned::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let is_enhanced = ["fourCcList", "capsEx", "videoFourCcInfoMap", "audioFourCcInfoMap"]
        .iter()
        .any(|key| object.get(key).is_some());
    let object_encoding = number("objectEncoding");
    let info = ConnectInfo {
        app: app.to_owned(),
        query: query.map(ToOwned::to_owned),
        vhost: vhost.map(ToOwned::to_owned),
        tc_url: tc_url.map(ToOwned::to_owned),
        page_url: text("pageUrl"),
        swf_url: text("swfUrl"),
        flash_ver: text("flashVer"),
        four_cc_list,
        caps_ex: number("capsEx"),
        object_encoding,
    };
    let object_encoding =
        if object_encoding.is_some_and(|encoding| encoding.to_bits() == 3f64.to_bits()) { 3.0 } else { 0.0 };
    Ok((info, ConnectCall { transaction: call.transaction, object_encoding, is_enhanced }))
}

/// Reads the stream name of `publish` or `play`: the name, and its query without `?`.
pub(super) fn read_stream(value: Option<&Value>) -> Result<(String, Option<String>), NameProblem> {
    let (name, query) = split_query(value.and_then(Value::as_str).ok_or(NameProblem::Name)?);
    if name.is_empty() || name.len() > STREAM_BYTES_MAX {
        return Err(NameProblem::Name);
    }
    if query.is_some_and(|query| !is_query_acceptable(query)) {
        return Err(NameProblem::Query);
    }
    Ok((name.to_owned(), query.map(ToOwned::to_owned)))
}

/// The value of the first parameter `key` of a query (without `?`); empty values are `None`. RTMP defines
/// no escapes, so none are undone.
#[must_use]
pub fn query_value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|parameter| parameter.split_once('='))
        .find_map(|(name, value)| (name == key && !value.is_empty()).then_some(value))
}

/// Splits at the first `?`; a query of no characters is none.
fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((name, query)) => (name, Some(query).filter(|query| !query.is_empty())),
        None => (text, None),
    }
}

/// RT-51: a parameter that decides about access must not have two readings.
fn is_query_acceptable(query: &str) -> bool {
    let is_once = |key: &str| {
        query.split('&').filter(|parameter| parameter.split('=').next().is_some_and(|name| name == key)).count() <= 1
    };
    query.len() <= QUERY_BYTES_MAX
        && query.split('&').count() <= QUERY_PARAMETERS_MAX
        && ["token", "expires", "sign", "vhost"].into_iter().all(is_once)
}

/// The parts of `tcUrl` that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Target<'a> {
    host: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn read(url: &'a str) -> Self {
        let Some((_, rest)) = url.split_once("://") else { return Self::default() };
        let (rest, query) = split_query(rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // An IPv6 address stands in brackets, and the colon of a port comes after them.
        let host = match host.strip_prefix('[') {
            Some(literal) => literal.split(']').next(),
            None => host.split(':').next(),
        };
        Self { host: host.filter(|host| !host.is_empty()), path, query }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_taken_apart() {
        let read = |url| Target::read(url);
        assert_eq!(
            read("rtmp://a.example:1935/live/x?token=1"),
            Target { host: Some("a.example"), path: "live/x", query: Some("token=1") }
        );
        assert_eq!(read("rtmp://[::1]:1935/live"), Target { host: Some("::1"), path: "live", query: None });
        assert_eq!(read("rtmp://u:p@h/a"), Target { host: Some("h"), path: "a", query: None });
        assert_eq!(read("rtmp://h"), Target { host: Some("h"), path: "", query: None });
        assert_eq!(read("rtmp:///a"), Target { host: None, path: "a", query: None });
        assert_eq!(read("nonsense"), Target::default());
    }

    #[test]
    fn rt_51_queries_have_one_reading_and_a_limit() {
        assert!(is_query_acceptable("token=a&x=1&x=2"));
        assert!(!is_query_acceptable("token=a&token=b"));
        assert!(!is_query_acceptable("sign&sign=b"));
        assert!(!is_query_acceptable("expires=1&a=b&expires=1"));
        assert!(is_query_acceptable(&vec!["a=b"; 32].join("&")));
        assert!(!is_query_acceptable(&vec!["a=b"; 33].join("&")));
        assert!(is_query_acceptable(&"a".repeat(2048)));
        assert!(!is_query_acceptable(&"a".repeat(2049)));
    }

    #[test]
    fn a_query_value_is_the_first_that_is_not_empty() {
        assert_eq!(query_value("a=1&vhost=x.example&b", "vhost"), Some("x.example"));
        assert_eq!(query_value("vhost=", "vhost"), None);
        assert_eq!(query_value("xvhost=1", "vhost"), None);
    }
}
