//! The one filter grammar: fields with alternatives; comma = or, several fields = and.

use crate::control::view::SessionRow;
use crate::names::{Kind, Name, Protocol, SessionId, is_path};
use crate::session::State;
use crate::stdx::remote::{NoRemote, Remote};

/// Which sessions. An empty list means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `id=`
    pub ids: Vec<SessionId>,
    /// `kind=`
    pub kinds: Vec<Kind>,
    /// `protocol=`
    pub protocols: Vec<Protocol>,
    /// `vhost=`
    pub vhosts: Vec<String>,
    /// `app=`
    pub apps: Vec<String>,
    /// `stream=`: the stream's name, or `app/stream`, or `vhost/app/stream`.
    pub streams: Vec<String>,
    /// `user=`
    pub users: Vec<String>,
    /// `remote=`: an address, an address with port, or a CIDR block.
    pub remotes: Vec<Remote>,
    /// `state=`
    pub states: Vec<State>,
}

/// Why a filter was refused: the field and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FilterError {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The most bytes of a filter, ids not counted.
pub const FILTER_BYTES_MAX: usize = 1_024;
/// The most terms (alternatives over all fields together, ids not counted).
pub const FILTER_TERMS_MAX: usize = 8;
/// The most ids of a filter.
pub const FILTER_IDS_MAX: usize = 1_000;
/// The fields of a filter.
pub const FILTER_FIELDS: [&str; 9] = ["id", "kind", "protocol", "vhost", "app", "stream", "user", "remote", "state"];

/// The most of an unknown field's name that is repeated to the caller.
const ECHO_CHARS_MAX: usize = 40;

impl Filter {
    /// Adds `field=value`, where value may be several alternatives with commas. Adding a field again adds
    /// alternatives. A name that itself has a comma cannot be filtered by.
    ///
    /// # Errors
    /// Unknown field, unreadable value, or too many terms. Nothing has been added then.
    pub fn add(&mut self, field: &str, value: &str) -> Result<(), FilterError> {
        let mut next = self.clone();
        next.read(field, value)
            .map_err(|message| FilterError { field: field.chars().take(ECHO_CHARS_MAX).collect(), message })?;
        *self = next;
        Ok(())
    }

    fn read(&mut self, field: &str, value: &str) -> Result<(), String> {
        let bytes_max = if field == "id" { FILTER_IDS_MAX * 37 } else { FILTER_BYTES_MAX };
        if value.len() > bytes_max {
            return Err(format!("longer than {bytes_max} bytes"));
        }
        let terms = value.split(',');
        match field {
            "id" => extend(&mut self.ids, terms, |term| {
                SessionId::parse(term).ok_or_else(|| "not a session id (8-4-4-4-12 hexadecimal digits)".to_owned())
            }),
            "kind" => extend(&mut self.kinds, terms, |term| one_of(&Kind::ALL, Kind::as_str, term)),
            "protocol" => extend(&mut self.protocols, terms, |term| one_of(&Protocol::ALL, Protocol::as_str, term)),
            "vhost" => extend(&mut self.vhosts, terms, name),
            "app" => extend(&mut self.apps, terms, name),
            "stream" => extend(&mut self.streams, terms, name),
            "user" => extend(&mut self.users, terms, user),
            "remote" => {
                extend(&mut self.remotes, terms, |term| term.parse().map_err(|error: NoRemote| error.to_string()))
            }
            "state" => extend(&mut self.states, terms, |term| one_of(&State::ALL, State::as_str, term)),
            other => Err(unknown_field(other)),
        }?;
        if self.terms() > FILTER_TERMS_MAX {
            return Err(format!("more than {FILTER_TERMS_MAX} terms in the filter"));
        }
        if self.ids.len() > FILTER_IDS_MAX {
            return Err(format!("more than {FILTER_IDS_MAX} ids in the filter"));
        }
        let texts = [&self.vhosts, &self.apps, &self.streams, &self.users];
        if texts.into_iter().flatten().map(String::len).sum::<usize>() > FILTER_BYTES_MAX {
            return Err(format!("the filter is longer than {FILTER_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    /// Alternatives over all fields, ids not counted.
    fn terms(&self) -> usize {
        self.kinds.len()
            + self.protocols.len()
            + self.vhosts.len()
            + self.apps.len()
            + self.streams.len()
            + self.users.len()
            + self.remotes.len()
            + self.states.len()
    }

    /// True without any condition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True when `row` meets every field. To find sessions by many ids, use
    /// [`View::select`](crate::control::View::select), which looks them up.
    #[must_use]
    pub fn matches(&self, row: &SessionRow) -> bool {
        (self.ids.is_empty() || self.ids.contains(&row.facts.id)) && self.matches_but_id(row)
    }

    pub(super) fn matches_but_id(&self, row: &SessionRow) -> bool {
        let facts = &*row.facts;
        let key = &facts.key;
        any(&self.kinds, |kind| *kind == facts.kind)
            && any(&self.states, |state| *state == row.state)
            && any(&self.protocols, |protocol| *protocol == facts.protocol)
            && any(&self.vhosts, |vhost| vhost == key.vhost())
            && any(&self.apps, |app| app == key.app())
            && any(&self.streams, |path| is_path(path, key.vhost(), key.app(), key.stream()))
            && any(&self.users, |user| facts.user.as_deref() == Some(user.as_str()))
            && any(&self.remotes, |remote| remote.matches(facts.remote.ip(), facts.remote.port()))
    }
}

/// No alternatives mean that the field does not matter.
fn any<T>(alternatives: &[T], is: impl FnMut(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(is)
}

fn extend<'a, T: PartialEq>(
    to: &mut Vec<T>,
    terms: impl Iterator<Item = &'a str>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<(), String> {
    for term in terms {
        if term.is_empty() {
            return Err("an alternative is empty".to_owned());
        }
        to.push(read(term)?);
    }
    Ok(())
}

/// A name, or several with slashes between them: what no name may have cannot be looked for.
fn name(term: &str) -> Result<String, String> {
    for segment in term.split('/') {
        Name::stream(segment).map_err(|error| error.to_string())?;
    }
    Ok(term.to_owned())
}

fn user(term: &str) -> Result<String, String> {
    if term.chars().any(char::is_control) {
        return Err("a user has no control characters".to_owned());
    }
    Ok(term.to_owned())
}

fn one_of<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str, term: &str) -> Result<T, String> {
    all.iter().copied().find(|value| name(*value) == term).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
        format!("not one of {}", names.join(", "))
    })
}

fn unknown_field(field: &str) -> String {
    let fields = FILTER_FIELDS.join(", ");
    // Comparing costs the product of the lengths: nothing long is near anything anyway.
    let nearest = (field.len() <= ECHO_CHARS_MAX)
        .then(|| FILTER_FIELDS.into_iter().map(|known| (strsim::damerau_levenshtein(field, known), known)).min())
        .flatten()
        .filter(|(distance, _)| *distance <= 2);
    match nearest {
        Some((_, nearest)) => format!("no such field; did you mean '{nearest}'? (fields: {fields})"),
        None => format!("no such field (fields: {fields})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{row, with_facts};

    fn filter(terms: &[(&str, &str)]) -> Filter {
        let mut filter = Filter::default();
        for (field, value) in terms {
            filter.add(field, value).unwrap();
        }
        filter
    }

    #[test]
    fn commas_are_or_and_fields_are_and() {
        let row = row(1, Kind::Play, "live/cam1", "192.0.2.7:4000");
        assert!(filter(&[]).matches(&row));
        assert!(filter(&[("kind", "publish,play")]).matches(&row));
        assert!(!filter(&[("kind", "publish")]).matches(&row));
        assert!(filter(&[("kind", "play"), ("app", "live,vod")]).matches(&row));
        assert!(!filter(&[("kind", "play"), ("app", "vod")]).matches(&row));
        assert!(filter(&[("state", "establishing"), ("protocol", "rtmp")]).matches(&row));
        assert!(filter(&[("id", &row.facts.id.to_string())]).matches(&row));
        assert!(filter(&[("vhost", "default")]).matches(&row));
        assert!(!filter(&[("user", "ann")]).matches(&row));
        let ann = with_facts(row, |facts| facts.user = Some("ann".into()));
        assert!(filter(&[("user", "bob,ann")]).matches(&ann));
    }

    #[test]
    fn a_stream_may_be_named_with_app_and_vhost() {
        let row = row(1, Kind::Play, "live/cam1", "192.0.2.7:4000");
        for name in ["cam1", "live/cam1", "default/live/cam1"] {
            assert!(filter(&[("stream", name)]).matches(&row), "{name}");
        }
        for name in
            ["am1", "xcam1", "e/cam1", "vod/cam1", "t/live/cam1", "other/live/cam1", "cam", "a/default/live/cam1"]
        {
            assert!(!filter(&[("stream", name)]).matches(&row), "{name}");
        }
    }

    #[test]
    fn a_remote_is_an_address_a_socket_or_a_block() {
        let v4 = row(1, Kind::Play, "live/a", "192.0.2.7:4000");
        for remote in ["192.0.2.7", "192.0.2.7:4000", "192.0.2.0/24", "192.0.2.99/24", "::ffff:192.0.2.7"] {
            assert!(filter(&[("remote", remote)]).matches(&v4), "{remote}");
        }
        for remote in ["192.0.2.8", "192.0.2.7:4001", "192.0.3.0/24", "::/0"] {
            assert!(!filter(&[("remote", remote)]).matches(&v4), "{remote}");
        }
        let v6 = row(1, Kind::Play, "live/a", "[2001:db8::1]:4000");
        for remote in ["2001:db8::1", "[2001:db8::1]:4000", "2001:db8::/32"] {
            assert!(filter(&[("remote", remote)]).matches(&v6), "{remote}");
        }
        let mapped = row(1, Kind::Play, "live/a", "[::ffff:192.0.2.7]:4000");
        assert!(filter(&[("remote", "192.0.2.0/24")]).matches(&mapped));
    }

    #[test]
    fn ap_06_hostile_filters_are_refused_and_leave_the_filter_as_it_was() {
        let mut filter = Filter::default();
        filter.add("app", "live").unwrap();
        let before = filter.clone();
        let long = "a".repeat(1 << 20);
        let many = vec!["a"; 1_000].join(",");
        let ids = vec!["01991234-0000-7000-8000-000000000000"; 1_001].join(",");
        for (field, value) in [
            ("app", long.as_str()),
            ("id", &long),
            (&long, "x"),
            ("app", &many),
            ("app", "a,b,c,d,e,f,g,h"),
            ("app", ""),
            ("app", ",a"),
            ("app", "a,,b"),
            ("app", "%2e%2e"),
            ("app", ".."),
            ("stream", "a//b"),
            ("stream", "a\u{202e}b"),
            ("id", &ids),
            ("id", "../../etc/passwd"),
            ("id", "%00"),
            ("kind", "Publish"),
            ("kind", "\u{440}lay"),
            ("state", "closed"),
            ("protocol", "gopher"),
            ("remote", "300.1.1.1"),
            ("remote", "192.0.2.0/33"),
            ("remote", "example.org"),
            ("user", "a\nb"),
            ("nonsense", "x"),
        ] {
            assert!(filter.add(field, value).is_err(), "{field}={} was accepted", &value[..value.len().min(40)]);
            assert_eq!(filter, before);
        }
        for n in 0..7 {
            filter.add("stream", &format!("s{n}")).unwrap();
        }
        assert!(filter.add("stream", "one-too-many").is_err());
    }

    #[test]
    fn ap_06_a_filter_at_its_limits_is_accepted() {
        let mut filter = Filter::default();
        filter.add("app", "a,b,c,d,e,f,g,h").unwrap();
        let ids: Vec<_> = (0..1_000u64).map(|n| SessionId::new(n, [0; 10]).to_string()).collect();
        filter.add("id", &ids.join(",")).unwrap();
        assert_eq!(filter.ids.len(), 1_000);
    }

    #[test]
    fn ap_06_an_unknown_field_is_told_which_there_are() {
        let error = Filter::default().add("stram", "x").unwrap_err();
        assert!(error.message.contains("did you mean 'stream'?"), "{error}");
        let error = Filter::default().add("bitrate", "x").unwrap_err();
        assert!(error.message.contains("id, kind, protocol, vhost"), "{error}");
        assert!(!error.message.contains("did you mean"), "{error}");
        let error = Filter::default().add(&"x".repeat(1_000), "x").unwrap_err();
        assert!(error.to_string().len() < 200, "{error}");
    }
}
