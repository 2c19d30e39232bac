//! Which sessions of the past.

use crate::names::{Kind, Protocol};
use crate::session::Reason;
use crate::stdx::remote::Remote;

/// Which sessions. An empty list means any; the fields all hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What they were.
    pub kinds: Vec<Kind>,
    /// How they were carried.
    pub protocols: Vec<Protocol>,
    /// On which virtual hosts.
    pub vhosts: Vec<String>,
    /// In which applications.
    pub apps: Vec<String>,
    /// On which streams: the name, or `app/stream`, or `vhost/app/stream`.
    pub streams: Vec<String>,
    /// Whose they were.
    pub users: Vec<String>,
    /// From where they came.
    pub remotes: Vec<Remote>,
    /// Why they ended. One that still runs has no reason.
    pub reasons: Vec<Reason>,
    /// Only those that still run, or only those that have ended.
    pub open: Option<bool>,
    /// Only those that were there at this moment or later.
    pub from_ms: Option<u64>,
    /// Only those that were there before this moment.
    pub to_ms: Option<u64>,
}

/// One way to read a path: which part of it is what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reading {
    pub(super) stream: String,
    pub(super) app: Option<String>,
    pub(super) vhost: Option<String>,
}

/// Every way to read `path`, or `None` when there are more than `most`.
pub(super) fn readings(path: &str, most: usize) -> Option<Vec<Reading>> {
    let mut found = vec![Reading { stream: path.to_owned(), app: None, vhost: None }];
    for (at, _) in path.match_indices('/') {
        let (before, stream) = (&path[..at], &path[at + 1..]);
        let one = |app: &str, vhost: Option<&str>| Reading {
            stream: stream.to_owned(),
            app: Some(app.to_owned()),
            vhost: vhost.map(str::to_owned),
        };
        found.push(one(before, None));
        found.extend(before.match_indices('/').map(|(at, _)| one(&before[at + 1..], Some(&before[..at]))));
        if found.len() > most {
            return None;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::is_path;

    #[test]
    fn a_path_is_read_in_every_way_that_it_can_be_meant() {
        let text = |reading: &Reading| {
            format!("{:?} {:?} {}", reading.vhost.as_deref(), reading.app.as_deref(), reading.stream)
        };
        let read: Vec<String> = readings("v/a/s", 32).unwrap().iter().map(text).collect();
        assert_eq!(
            read,
            ["None None v/a/s", r#"None Some("v") a/s"#, r#"None Some("v/a") s"#, r#"Some("v") Some("a") s"#,]
        );
        assert_eq!(readings(&"a/".repeat(500), 32), None);
        for reading in readings("a/b/c/d", 32).unwrap() {
            let (vhost, app) = (reading.vhost.as_deref().unwrap_or("any"), reading.app.as_deref().unwrap_or("any"));
            assert!(is_path("a/b/c/d", vhost, app, &reading.stream), "{reading:?}");
        }
    }

    #[test]
    fn a_block_of_one_address_is_that_address() {
        let block = |text: &str| Remote::Block(text.parse().unwrap());
        assert_eq!(block("192.0.2.7/32").address(), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(block("192.0.2.0/24").address(), None);
        assert!(block("2001:db8::/32").matches("2001:db8::1".parse().unwrap(), 1));
        assert!(!Remote::Socket("192.0.2.7:1".parse().unwrap()).matches("192.0.2.7".parse().unwrap(), 2));
    }
}
