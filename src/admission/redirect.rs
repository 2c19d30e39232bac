//! Where a back end may send a peer.

use std::net::IpAddr;

/// The longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// True when `url` is an absolute URL of a streaming scheme whose host is one of `hosts` or our own address `local`.
/// HK-09: a back end that has been taken over must not send our peers wherever it likes.
#[must_use]
pub fn is_allowed(url: &str, hosts: &[String], local: IpAddr) -> bool {
    let Some(host) = host(url) else { return false };
    let host = host.strip_suffix('.').unwrap_or(host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare))
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == local.to_canonical())
}

/// The host of a URL that can be read in one way only: without a user, blanks, control characters or backslashes.
fn host(url: &str) -> Option<&str> {
    if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return None;
    }
    let (scheme, rest) = url.split_once("://")?;
    let known = ["rtmp", "rtmps", "http", "https", "srt"];
    if !known.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    if authority.contains('@') {
        return None;
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((inner, port)) => (authority.get(..inner.len().checked_add(2)?)?, port.strip_prefix(':').or(empty(port))?),
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (!host.is_empty() && is_port).then_some(host)
}

fn empty(text: &str) -> Option<&str> {
    text.is_empty().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hk_09_only_hosts_that_the_configuration_names() {
        let hosts = ["edge.example".to_owned(), "2001:db8::7".to_owned()];
        let local: IpAddr = "192.0.2.1".parse().unwrap();
        for good in [
            "rtmp://edge.example/live",
            "RTMPS://EDGE.example:443/live/cam?x=1",
            "https://edge.example.",
            "rtmp://[2001:db8::7]:1935/live",
            "rtmp://192.0.2.1/live",
            "http://edge.example?x",
        ] {
            assert!(is_allowed(good, &hosts, local), "{good}");
        }
        for bad in [
            "",
            "edge.example",
            "//edge.example",
            "rtmp:edge.example",
            "javascript://edge.example/%0aalert(1)",
            "rtmp://evil.example/edge.example",
            "rtmp://edge.example@evil.example/",
            "rtmp://edge.example:pw@evil.example/",
            "rtmp://edge.example.evil.example/",
            "rtmp://edge.example\\@evil.example/",
            "rtmp://evil.example#@edge.example/",
            "rtmp://evil.example?edge.example",
            "rtmp://edge.example :80/",
            "rtmp://edge.example\t/",
            "rtmp://edge.example:99999x/",
            "rtmp://192.0.2.2/",
            "rtmp://[::1]evil/",
            "rtmp:///live",
        ] {
            assert!(!is_allowed(bad, &hosts, local), "{bad}");
        }
        assert!(!is_allowed(&format!("rtmp://edge.example/{}", "a".repeat(URL_BYTES_MAX)), &hosts, local));
    }
}
