//! Names of back ends: looked up, remembered while look-ups fail, and kept from leading where they should not.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tower::Service;

/// A good address is used so long while look-ups fail.
pub const KEPT_FOR: Duration = Duration::from_mins(10);
/// A look-up is not repeated within this time, whatever came of it: connections may be many.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Looks one back end's name up.
pub(crate) struct Resolver<L>(Arc<Inner<L>>);

struct Inner<L> {
    lookup: L,
    /// The longest that a look-up may take. Shorter than a connection may take, so that the kept address has its turn.
    patience: Duration,
    allow_private: bool,
    /// One at a time: those who come meanwhile wait for its result instead of asking as well.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    addresses: Vec<SocketAddr>,
    /// When they were found.
    good_at: Option<Instant>,
    /// When they were last looked for.
    looked_at: Option<Instant>,
}

/// Where addresses come from.
pub(crate) trait Lookup: Send + Sync + 'static {
    /// The addresses of a name.
    fn lookup(&self, name: String) -> impl Future<Output = std::io::Result<Vec<SocketAddr>>> + Send;
}

/// The system's own look-up.
pub(crate) struct System;

impl Lookup for System {
    async fn lookup(&self, name: String) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.collect())
    }
}

impl<L: Lookup> Resolver<L> {
    pub(crate) fn new(lookup: L, patience: Duration, allow_private: bool) -> Self {
        Self(Arc::new(Inner { lookup, patience, allow_private, kept: Mutex::default() }))
    }
}

impl<L> Clone for Resolver<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<L: Lookup> Service<Name> for Resolver<L> {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(inner.addresses(name.as_str()).await?.into_iter()) })
    }
}

impl<L: Lookup> Inner<L> {
    async fn addresses(&self, name: &str) -> std::io::Result<Vec<SocketAddr>> {
        let mut kept = self.kept.lock().await;
        let now = Instant::now();
        let within = |at: Option<Instant>, time| at.is_some_and(|at| now.duration_since(at) < time);
        let looked = within(kept.looked_at, FRESH_FOR);
        if looked && !kept.addresses.is_empty() {
            return Ok(kept.addresses.clone());
        }
        let found = if looked {
            Err(std::io::Error::other("the name was not found a moment ago"))
        } else {
            kept.looked_at = Some(now);
            let found = timeout(self.patience, self.lookup.lookup(name.to_owned())).await;
            found
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
                .and_then(|found| self.permitted(name, found))
        };
        match found {
            Ok(addresses) => {
                *kept = Kept { addresses: addresses.clone(), good_at: Some(now), looked_at: Some(now) };
                Ok(addresses)
            }
            // A name that has come to lead where it may not is not a look-up that failed: nothing is kept of it.
            Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied && within(kept.good_at, KEPT_FOR) => {
                Ok(kept.addresses.clone())
            }
            Err(error) => {
                kept.addresses.clear();
                kept.good_at = None;
                Err(error)
            }
        }
    }

    /// The addresses that the name may lead to.
    fn permitted(&self, name: &str, found: Vec<SocketAddr>) -> std::io::Result<Vec<SocketAddr>> {
        if found.is_empty() {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        let any = self.allow_private || is_localhost(name);
        let permitted: Vec<SocketAddr> = found.into_iter().filter(|address| any || !is_private(address.ip())).collect();
        if permitted.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::PermissionDenied,
                "the name leads to a loopback or link-local address",
            ));
        }
        Ok(permitted)
    }
}

/// A name that means this machine (RFC 6761 §6.3): who writes it means it.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a name that others answer for should not lead here: what only this machine or its neighbours reach, and where
/// clouds keep their secrets. Private networks (RFC 1918) are not meant, back ends live there.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let metadata = matches!(ip.octets(), [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16]);
            ip.octets()[0] == 0
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || metadata
        }
        IpAddr::V6(ip) => {
            // An IPv4 address behind a translator (RFC 6052 §2.1).
            let translated = match ip.octets() {
                [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => is_private(IpAddr::from([a, b, c, d])),
                // An IPv4-compatible address, long out of use.
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, _, _, _, _] => true,
                _ => false,
            };
            let metadata = ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            translated || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast() || metadata
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;

    /// A name server that says what it is told to; `None` never answers.
    #[derive(Clone, Default)]
    struct Scripted(Arc<StdMutex<Script>>);

    #[derive(Default)]
    struct Script {
        says: Option<Vec<&'static str>>,
        asked: u32,
    }

    impl Scripted {
        fn say(&self, addresses: Option<&[&'static str]>) {
            self.0.lock().unwrap().says = addresses.map(<[_]>::to_vec);
        }

        fn asked(&self) -> u32 {
            self.0.lock().unwrap().asked
        }
    }

    impl Lookup for Scripted {
        async fn lookup(&self, _: String) -> std::io::Result<Vec<SocketAddr>> {
            let said = {
                let mut script = self.0.lock().unwrap();
                script.asked += 1;
                script.says.clone()
            };
            match said {
                Some(addresses) if addresses == ["broken"] => Err(std::io::Error::other("no such name")),
                Some(addresses) => Ok(addresses.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()),
                None => std::future::pending().await,
            }
        }
    }

    fn resolver(allow_private: bool) -> (Scripted, Arc<Inner<Scripted>>) {
        let names = Scripted::default();
        let resolver = Resolver::new(names.clone(), Duration::from_millis(500), allow_private);
        (names, resolver.0)
    }

    async fn resolve(inner: &Inner<Scripted>, name: &str) -> Option<Vec<String>> {
        let found = inner.addresses(name).await.ok()?;
        Some(found.iter().map(|address| address.ip().to_string()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn fa_35_the_last_good_address_serves_for_ten_minutes_without_dns() {
        for down in [None, Some(&["broken"][..])] {
            let (names, inner) = resolver(false);
            names.say(Some(&["192.0.2.7"]));
            let good = Some(vec!["192.0.2.7".to_owned()]);
            assert_eq!(resolve(&inner, "backend.example").await, good);
            names.say(down);
            tokio::time::advance(Duration::from_secs(598)).await;
            assert_eq!(resolve(&inner, "backend.example").await, good, "DNS down: {down:?}");
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(
                resolve(&inner, "backend.example").await,
                None,
                "an address is kept for ten minutes and no longer"
            );
            names.say(Some(&["192.0.2.8"]));
            tokio::time::advance(FRESH_FOR).await;
            assert_eq!(resolve(&inner, "backend.example").await, Some(vec!["192.0.2.8".to_owned()]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_once_a_second_however_many_ask() {
        let (names, inner) = resolver(false);
        names.say(Some(&["192.0.2.7"]));
        for _ in 0..100 {
            assert!(resolve(&inner, "backend.example").await.is_some());
        }
        assert_eq!(names.asked(), 1);
        names.say(None);
        tokio::time::advance(FRESH_FOR).await;
        for _ in 0..100 {
            assert!(resolve(&inner, "backend.example").await.is_some());
        }
        assert_eq!(names.asked(), 2, "one that hangs is not asked again at once either");
    }

    #[tokio::test(start_paused = true)]
    async fn hk_14_a_name_does_not_lead_to_this_machine_or_to_its_neighbours() {
        for private in
            ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0", "fd00:ec2::254"]
        {
            let (names, inner) = resolver(false);
            names.say(Some(&[private]));
            assert_eq!(resolve(&inner, "backend.example").await, None, "{private}");
            let (names, inner) = resolver(false);
            names.say(Some(&[private, "10.0.0.7"]));
            assert_eq!(resolve(&inner, "backend.example").await, Some(vec!["10.0.0.7".to_owned()]), "{private}");
            let (names, inner) = resolver(true);
            names.say(Some(&[private]));
            assert!(resolve(&inner, "backend.example").await.is_some(), "the configuration allows it");
        }
        let (names, inner) = resolver(false);
        names.say(Some(&["127.0.0.1"]));
        assert!(resolve(&inner, "localhost").await.is_some(), "who writes localhost means it");
        assert!(resolve(&inner, "LocalHost.").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn hk_14_a_name_is_checked_each_time_it_is_resolved() {
        let (names, inner) = resolver(false);
        names.say(Some(&["192.0.2.7"]));
        assert!(resolve(&inner, "backend.example").await.is_some());
        // The name is bound anew, to where it may not lead: that is no failure of the look-up.
        names.say(Some(&["127.0.0.1"]));
        tokio::time::advance(FRESH_FOR).await;
        assert_eq!(resolve(&inner, "backend.example").await, None);
    }

    #[test]
    fn hk_14_private_addresses_in_every_disguise() {
        for private in [
            "127.9.9.9",
            "169.254.0.1",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::",
            "::7f00:1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "ff02::1",
            "fe80::ffff",
            "168.63.129.16",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in
            ["10.0.0.1", "192.168.1.1", "172.16.0.1", "192.0.2.1", "2001:db8::1", "fd00::1", "64:ff9b::c000:201"]
        {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
