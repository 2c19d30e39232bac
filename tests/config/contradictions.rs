//! CF-05, CF-08, AP-02: settings that cannot be meant.

use crate::{refusal, warnings};

/// Stands before the texts below, so that the one warning about publishing does not hide the others.
const QUIET: &str = "[admission]\npublish = \"loopback\"\n";

#[test]
fn cf_08_nobody_may_publish_is_a_warning() {
    let warned = warnings("[admission]\npublish = \"deny\"\n");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("f:2:1: warning: admission.publish: ") && warned[0].contains("nobody may publish"));
    assert!(warnings(QUIET).is_empty());
}

#[test]
fn cf_08_limits_that_can_never_be_reached_name_both_keys() {
    for (text, first, second) in [
        ("[rtmp]\npartial_bytes = \"4MiB\"\n", "rtmp.max_video", "rtmp.partial_bytes"),
        ("[shard]\nconnections_per_ip = 10\n", "shard.unauthenticated_per_ip", "shard.connections_per_ip"),
        ("[stream]\nrelay_bytes = \"1MiB\"\n", "stream.relay_bytes", "rtmp.max_video"),
        ("[shard]\nlatency_max = \"2s\"\n[stream]\nqueue_time = \"1s\"\n", "shard.latency_max", "stream.queue_time"),
        ("[stream]\ngop_bytes = \"0\"\n", "stream.gop_bytes", "stream.gop_duration"),
    ] {
        let warned = warnings(&format!("{QUIET}{text}"));
        assert_eq!(warned.len(), 1, "{text}: {warned:?}");
        assert!(warned[0].contains(first) && warned[0].contains(second), "{warned:?}");
    }
}

#[test]
fn cf_08_publishing_open_to_the_world_is_a_warning() {
    let warned = warnings("[admission]\npublish = \"open\"\n");
    assert!(warned.iter().any(|line| line.contains("whoever reaches it may publish")), "{warned:?}");
    let quiet =
        warnings("[admission]\npublish = \"open\"\n[shard]\nrtmp_listen = [\"127.0.0.1:1935\", \"[::1]:1935\"]\n");
    assert!(quiet.is_empty(), "{quiet:?}");
}

#[test]
fn cf_05_equal_listeners_are_refused() {
    let refused = refusal(format!("{QUIET}[shard]\nrtmp_listen = [\"127.0.0.1:1935\", \"127.0.0.1:1935\"]\n"));
    assert_eq!(refused, ["f:4:1: error: shard.rtmp_listen: 127.0.0.1:1935 is named twice"]);
    let refused = refusal(format!("{QUIET}[api]\nlisten = \"127.0.0.1:1935\"\n"));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("127.0.0.1:1935 and 0.0.0.0:1935 of shard.rtmp_listen are the same port"));
}

#[test]
fn ap_02_api_off_loopback_needs_a_token_and_warns_about_plain_text() {
    let refused = refusal(format!("{QUIET}[api]\nlisten = \"0.0.0.0:8081\"\n"));
    assert!(refused[0].starts_with("f:4:1: error: api.listen: ") && refused[0].contains("[[api.tokens]]"));
    let warned = warnings(&format!(
        "{QUIET}[api]\nlisten = \"0.0.0.0:8081\"\n[[api.tokens]]\ntoken = \"0123456789abcdefghijkl\"\nrole = \"read\"\n"
    ));
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("not encrypted"), "{warned:?}");
}

#[test]
fn cf_08_nobody_may_publish_is_no_warning_where_a_rule_decides() {
    let key = "[[admission.keys]]\nkeys = [\"0123456789abcdef0123456789abcdef\"]\n";
    assert!(warnings(&format!("[admission]\npublish = \"deny\"\n{key}")).iter().all(|line| line.contains("chmod")));
}

#[test]
fn cf_08_a_rule_behind_one_for_everybody_is_a_warning_that_names_both() {
    let all = "[[admission.rules]]\neffect = \"deny\"\n";
    let some = "[[admission.rules]]\neffect = \"allow\"\nnetworks = [\"192.0.2.0/24\"]\n";
    let warned = warnings(&format!("{QUIET}{some}{all}{some}"));
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("rule 2 matches everybody") && warned[0].contains("rule 3"), "{warned:?}");
    assert!(warnings(&format!("{QUIET}{some}{all}")).is_empty());
}

#[test]
fn rules_that_cannot_be_obeyed_are_errors_at_their_place() {
    for (text, expected) in [
        ("[[admission.jwt]]\nissuer = \"me\"\n", "f:3:1: error: admission.jwt[0]: it needs secrets, public_keys"),
        ("[[admission.keys]]\nkey = [\"x\"]\n", "did you mean `admission.keys.keys`?"),
        ("[[admission.rules]]\neffect = \"deny\"\nnetworks = [\"192.0.2.0/33\"]\n", "error: admission.rules: "),
        ("[[admission.rules]]\neffect = \"deny\"\napps = [\"a*\"]\n", "a pattern for apps is"),
        ("[[admission.rules]]\nnetworks = [\"192.0.2.0/24\"]\n", "missing field `effect`"),
    ] {
        let refused = refusal(format!("{QUIET}{text}"));
        assert!(refused.len() == 1 && refused[0].contains(expected), "{text}: {refused:?}");
    }
}
