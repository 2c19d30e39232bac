//! Who may come from where.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proptest::prelude::*;
use sluicegate::admission::address::AddressRules;
use sluicegate::admission::settings::{AddressRule, Effect};
use sluicegate::admission::{Access, AppPattern, Bans, Decision, Gate, Policy, Settings};
use sluicegate::names::Kind;
use sluicegate::session::{CloseReason, Reason};

use crate::support::{address, request, stream_key};

fn rule(effect: Effect, networks: &[&str]) -> AddressRule {
    let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
    AddressRule { effect, networks, listener: None, apps: Vec::new(), kinds: Vec::new() }
}

fn listener() -> SocketAddr {
    "198.51.100.1:1935".parse().unwrap()
}

fn effect(rules: &[AddressRule], from: &str) -> Option<Effect> {
    AddressRules::new(rules).effect(Kind::Play, &stream_key("cam"), address(from), listener())
}

#[test]
fn the_first_rule_that_matches_holds_not_the_narrowest() {
    let wide_first = [rule(Effect::Deny, &["10.0.0.0/8"]), rule(Effect::Allow, &["10.1.0.0/16"])];
    assert_eq!(effect(&wide_first, "10.1.2.3"), Some(Effect::Deny));
    let narrow_first = [rule(Effect::Allow, &["10.1.0.0/16"]), rule(Effect::Deny, &["10.0.0.0/8"])];
    assert_eq!(effect(&narrow_first, "10.1.2.3"), Some(Effect::Allow));
    assert_eq!(effect(&narrow_first, "10.2.2.3"), Some(Effect::Deny));
    assert_eq!(effect(&narrow_first, "11.0.0.1"), None);
}

#[test]
fn a_rule_without_networks_is_about_everybody() {
    let rules = [rule(Effect::Allow, &["192.0.2.0/24", "2001:db8::/32"]), rule(Effect::Deny, &[])];
    for (from, expected) in [
        ("192.0.2.255", Effect::Allow),
        ("192.0.3.0", Effect::Deny),
        ("2001:db8:ffff::1", Effect::Allow),
        ("2001:db9::", Effect::Deny),
        ("0.0.0.0", Effect::Deny),
        ("255.255.255.255", Effect::Deny),
        ("::", Effect::Deny),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Effect::Deny),
    ] {
        assert_eq!(effect(&rules, from), Some(expected), "{from}");
    }
}

#[test]
fn an_ipv4_address_and_network_are_the_same_however_they_are_written() {
    for network in ["192.0.2.0/24", "::ffff:192.0.2.0/120"] {
        let rules = [rule(Effect::Deny, &[network])];
        for from in ["192.0.2.7", "::ffff:192.0.2.7"] {
            assert_eq!(effect(&rules, from), Some(Effect::Deny), "{network} {from}");
        }
        assert_eq!(effect(&rules, "::192.0.2.7"), None, "{network}");
    }
}

#[test]
fn a_rule_may_be_about_a_listener_an_app_and_a_kind() {
    let mut about = rule(Effect::Deny, &[]);
    about.listener = Some("0.0.0.0:1935".parse().unwrap());
    about.apps = vec![AppPattern::parse("live").unwrap()];
    about.kinds = vec![Kind::Publish];
    let rules = AddressRules::new(&[about.clone()]);
    let key = stream_key("cam");
    let from = address("192.0.2.1");
    assert_eq!(rules.effect(Kind::Publish, &key, from, listener()), Some(Effect::Deny));
    assert_eq!(rules.effect(Kind::Play, &key, from, listener()), None);
    assert_eq!(rules.effect(Kind::Publish, &key, from, "198.51.100.1:1936".parse().unwrap()), None);
    about.apps = vec![AppPattern::parse("vod").unwrap()];
    assert_eq!(AddressRules::new(&[about.clone()]).effect(Kind::Publish, &key, from, listener()), None);
    about.apps.clear();
    about.listener = Some("198.51.100.2:1935".parse().unwrap());
    assert_eq!(AddressRules::new(&[about]).effect(Kind::Publish, &key, from, listener()), None);
}

#[test]
fn allow_lets_in_where_nobody_else_decides_and_deny_is_told_by_its_key() {
    let settings = Settings {
        publish: Access::Deny,
        rules: vec![rule(Effect::Allow, &["192.0.2.0/24"]), rule(Effect::Deny, &["198.51.100.0/24"])],
        ..Settings::default()
    };
    let policy = Policy { gate: std::sync::Arc::new(Gate::new(&settings, &[])), bans: Bans::default() };
    let decide = |kind, from| policy.decide(std::time::Instant::now(), &request(kind, from, "cam"));
    assert_eq!(decide(Kind::Publish, "192.0.2.1"), Decision::Allow);
    let denied = Decision::Deny(CloseReason::with(Reason::IpDenied, "admission.rules"));
    assert_eq!(decide(Kind::Play, "198.51.100.1"), denied);
    let nobody = Decision::Deny(CloseReason::with(Reason::AuthDenied, "admission.publish"));
    assert_eq!(decide(Kind::Publish, "203.0.113.1"), nobody);
    assert_eq!(decide(Kind::Ingest, "198.51.100.1"), Decision::Allow, "we went there ourselves");
}

#[test]
fn a_hundred_thousand_networks_are_each_found_and_their_gaps_are_not() {
    // Every second /24 from 16.0.0.0 on.
    let net = |count: u32| std::net::Ipv4Addr::from_bits(0x1000_0000 + (count << 9));
    let networks = (0..100_000).map(|count| IpNet::new(net(count).into(), 24).unwrap()).collect();
    let mut block = rule(Effect::Deny, &[]);
    block.networks = networks;
    let rules = AddressRules::new(&[block]);
    let find = |address: u32| {
        let from = IpAddr::V4(std::net::Ipv4Addr::from_bits(address));
        rules.effect(Kind::Play, &stream_key("cam"), from, listener()).is_some()
    };
    for count in 0..100_000 {
        let first = net(count).to_bits();
        assert!(find(first) && find(first + 255) && !find(first + 256) && !find(first + 511), "{count}");
    }
    assert!(!find(0x0fff_ffff));
}

fn networks() -> impl Strategy<Value = IpNet> {
    // Few bits that differ, so that networks meet and nest.
    let v4 = (any::<u8>(), any::<u8>(), 0..=32_u8).prop_map(|(high, low, prefix)| {
        let address = u32::from_be_bytes([high & 0xc1, 0, 0, low]);
        IpNet::new(std::net::Ipv4Addr::from_bits(address).into(), prefix).unwrap()
    });
    let v6 = (any::<u8>(), any::<u8>(), 0..=128_u8).prop_map(|(high, low, prefix)| {
        let address = (u128::from(high & 0xc1) << 120) | u128::from(low);
        IpNet::new(std::net::Ipv6Addr::from_bits(address).into(), prefix).unwrap()
    });
    prop_oneof![3 => v4, 1 => v6]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranges_agree_with_asking_every_network(
        rules in prop::collection::vec(
            (prop::collection::vec(networks(), 0..8), 0..3_usize, any::<bool>()), 0..6
        ),
        probes in prop::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 32),
    ) {
        let rules: Vec<AddressRule> = rules
            .into_iter()
            .map(|(networks, effect, only_play)| AddressRule {
                effect: [Effect::Allow, Effect::Trust, Effect::Deny][effect],
                networks,
                listener: None,
                apps: Vec::new(),
                kinds: if only_play { vec![Kind::Play] } else { Vec::new() },
            })
            .collect();
        let compiled = AddressRules::new(&rules);
        for (high, low, is_v4) in probes {
            let from = if is_v4 {
                IpAddr::V4(std::net::Ipv4Addr::from_bits(u32::from_be_bytes([high & 0xc1, 0, 0, low])))
            } else {
                IpAddr::V6(std::net::Ipv6Addr::from_bits((u128::from(high & 0xc1) << 120) | u128::from(low)))
            };
            for kind in [Kind::Play, Kind::Publish] {
                let expected = rules
                    .iter()
                    .filter(|rule| rule.kinds.is_empty() || rule.kinds.contains(&kind))
                    .find(|rule| rule.networks.is_empty() || contains(&rule.networks, from))
                    .map(|rule| rule.effect);
                prop_assert_eq!(compiled.effect(kind, &stream_key("cam"), from, listener()), expected, "{}", from);
            }
        }
    }
}

/// `::/0` and its like hold IPv4-mapped addresses too, but peers are looked up by their canonical address.
fn contains(networks: &[IpNet], from: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&from.to_canonical()))
}
