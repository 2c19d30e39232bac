//! Which apps, and which streams, a rule is about.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{APP_BYTES_MAX, STREAM_BYTES_MAX, StreamKey};

/// Names one app or many.
///
/// `live` is the app of that name on every virtual host, `default/live` on that one. Either part may be `*`, and an
/// app may end in `/*` for everything below: `*/events/*` is `events/a` and `events/a/b`, not `events`. A pattern
/// with a slash begins with the virtual host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppPattern {
    /// `None` is any.
    vhost: Option<Box<str>>,
    app: App,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum App {
    Any,
    Is(Box<str>),
    /// With the slash.
    Below(Box<str>),
}

/// Why a text names no apps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern for apps is an app, `vhost/app`, `*` for either of them, or `vhost/app/*`")]
pub struct PatternError;

impl AppPattern {
    /// Reads one.
    ///
    /// # Errors
    /// When the text is empty, too long, or has a `*` where none may be.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > 2 * APP_BYTES_MAX + 1 || text.split('/').any(str::is_empty) {
            return Err(PatternError);
        }
        let (vhost, app) = text.split_once('/').map_or((None, text), |(vhost, app)| (Some(vhost), app));
        let vhost = vhost.filter(|vhost| *vhost != "*");
        if vhost.is_some_and(|vhost| vhost.contains('*')) {
            return Err(PatternError);
        }
        let app = match app.strip_suffix('*') {
            Some("") => App::Any,
            Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => App::Below(prefix.into()),
            None if !app.contains('*') => App::Is(app.into()),
            _ => return Err(PatternError),
        };
        Ok(Self { vhost: vhost.map(Into::into), app })
    }

    /// True for a stream of such an app.
    #[must_use]
    pub fn matches(&self, key: &StreamKey) -> bool {
        self.vhost.as_deref().is_none_or(|vhost| vhost == key.vhost())
            && match &self.app {
                App::Any => true,
                App::Is(app) => **app == *key.app(),
                App::Below(prefix) => key.app().starts_with(&**prefix),
            }
    }
}

impl fmt::Display for AppPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.vhost.as_deref().unwrap_or("*"))?;
        match &self.app {
            App::Any => f.write_str("*"),
            App::Is(app) => f.write_str(app),
            App::Below(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl TryFrom<String> for AppPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl From<AppPattern> for String {
    fn from(pattern: AppPattern) -> Self {
        pattern.to_string()
    }
}

/// True when `key` is one of the apps, of which none means all.
#[must_use]
pub fn is_among(apps: &[AppPattern], key: &StreamKey) -> bool {
    apps.is_empty() || apps.iter().any(|app| app.matches(key))
}

/// The longest pattern for streams, in bytes.
pub const STREAM_PATTERN_BYTES_MAX: usize = 2 * APP_BYTES_MAX + STREAM_BYTES_MAX + 2;

/// True when `pattern` names the stream: `app/stream` on the default virtual host or `vhost/app/stream`, where `*`
/// stands for any run of characters. Linear in the pattern times the name at worst, without recursion.
#[must_use]
pub fn names_stream(pattern: &str, key: &StreamKey) -> bool {
    if pattern.len() > STREAM_PATTERN_BYTES_MAX {
        return false;
    }
    let full = key.to_string();
    let short = full.strip_prefix("default/");
    glob(pattern.as_bytes(), full.as_bytes()) || short.is_some_and(|short| glob(pattern.as_bytes(), short.as_bytes()))
}

/// Matches with one place to go back to: the last `*` and what it has eaten.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0_usize, 0_usize);
    let mut back: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, t));
                p = p.saturating_add(1);
            }
            Some(wanted) if wanted == byte => {
                p = p.saturating_add(1);
                t = t.saturating_add(1);
            }
            _ => {
                let Some((star, eaten)) = back else { return false };
                let eaten = eaten.saturating_add(1);
                back = Some((star, eaten));
                p = star.saturating_add(1);
                t = eaten;
            }
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Name;

    fn key(vhost: &str, app: &str, stream: &str) -> StreamKey {
        StreamKey::new(&Name::app(vhost).unwrap(), &Name::app(app).unwrap(), &Name::stream(stream).unwrap())
    }

    #[test]
    fn a_pattern_names_the_apps_it_says_and_no_others() {
        for (pattern, vhost, app, expected) in [
            ("live", "default", "live", true),
            ("live", "other", "live", true),
            ("live", "default", "live2", false),
            ("live", "default", "live/a", false),
            ("default/live", "default", "live", true),
            ("default/live", "other", "live", false),
            ("*", "any", "a/b", true),
            ("*/live", "any", "live", true),
            ("default/*", "default", "a/b", true),
            ("default/*", "other", "a", false),
            ("*/events/*", "x", "events/a/b", true),
            ("*/events/*", "x", "events", false),
            ("*/events/*", "x", "eventsa", false),
        ] {
            let parsed = AppPattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(&key(vhost, app, "cam")), expected, "{pattern} {vhost}/{app}");
            assert_eq!(AppPattern::parse(&parsed.to_string()), Ok(parsed), "{pattern} is not stable");
        }
    }

    #[test]
    fn a_star_within_a_name_is_no_pattern() {
        for bad in ["", "a*", "*a", "a*/b", "a/b*", "a/*/b", "a//b", "/a", "a/", "**", "a/**"] {
            assert_eq!(AppPattern::parse(bad), Err(PatternError), "{bad:?}");
        }
    }

    #[test]
    fn a_stream_is_named_with_and_without_the_default_host() {
        for (pattern, expected) in [
            ("live/cam", true),
            ("default/live/cam", true),
            ("live/c*", true),
            ("*", true),
            ("*/cam", true),
            ("l*v*m", true),
            ("live/cam*", true),
            ("live/", false),
            ("live/cam2", false),
            ("cam", false),
            ("", false),
            ("live/ca", false),
            ("*x*", false),
        ] {
            assert_eq!(names_stream(pattern, &key("default", "live", "cam")), expected, "{pattern}");
        }
        assert!(!names_stream("live/cam", &key("other", "live", "cam")));
        assert!(names_stream("other/live/cam", &key("other", "live", "cam")));
    }

    #[test]
    fn many_stars_cost_no_more_than_the_product_of_the_lengths() {
        let pattern = format!("{}b", "*a".repeat(400));
        assert!(!names_stream(&pattern, &key("default", "live", &"a".repeat(512))));
    }
}
