//! CF-01, CF-02, CF-10: mistakes that people make.

use crate::{config, lines, refusal};
use sluicegate::config::{Overrides, load};
use std::path::Path;
use std::time::Duration;

#[test]
fn cf_01_misspelt_key_is_told_with_line_column_and_the_nearest_key() {
    let refused = refusal("[shard]\ncount = 2\n  latency_maxx = \"40ms\"\n");
    assert_eq!(refused, ["f:3:3: error: shard.latency_maxx: there is no such key; did you mean `shard.latency_max`?"]);
}

#[test]
fn cf_01_misspelt_section_is_told() {
    assert_eq!(refusal("[shrad]\ncount = 2\n"), ["f:1:2: error: shrad: there is no such key; did you mean `shard`?"]);
}

#[test]
fn cf_01_key_in_the_wrong_section_is_sent_to_the_right_one() {
    let refused = refusal("latency_max = \"40ms\"\n[rtmp]\ngop_bytes = \"1MiB\"\n");
    assert_eq!(
        refused,
        [
            "f:1:1: error: latency_max: there is no such key; did you mean `shard.latency_max`?",
            "f:3:1: error: rtmp.gop_bytes: there is no such key; did you mean `stream.gop_bytes`?",
        ]
    );
}

#[test]
fn cf_01_key_like_no_other_lists_the_valid_ones() {
    let refused = refusal("[log]\nzzzzzzzzzzzz = 1\n");
    assert_eq!(
        refused,
        ["f:2:1: error: log.zzzzzzzzzzzz: there is no such key; the keys of [log] are format, level, lines_max"]
    );
}

#[test]
fn cf_01_keys_of_nested_and_repeated_tables_are_checked() {
    let refused = refusal(
        "[api.datarhei]\nenable = true\n\n[[api.tokens]]\ntokn = \"0123456789abcdefghijkl\"\nrole = \"read\"\n",
    );
    assert_eq!(
        refused,
        [
            "f:2:1: error: api.datarhei.enable: there is no such key; did you mean `api.datarhei.enabled`?",
            "f:5:1: error: api.tokens.tokn: there is no such key; did you mean `api.tokens.token`?",
        ]
    );
}

#[test]
fn cf_01_columns_count_characters_and_keys_are_shown_escaped() {
    let refused = refusal("[log]\nlevel = \"info\" # ü\n\"a\\u001bb\" = 1\n");
    assert!(refused[0].starts_with("f:3:1: error: log.a\\u{1b}b: "), "{refused:?}");
    let refused = refusal("api = { \"ключ\" = 1, listenn = 2 }\n");
    assert!(refused[1].starts_with("f:1:21: error: api.listenn"), "{refused:?}");
}

#[test]
fn cf_02_duplicate_key_is_an_error_at_its_second_place() {
    let refused = refusal("[shard]\ncount = 1\ncount = 2\n");
    assert_eq!(refused.len(), 1);
    assert!(refused[0].starts_with("f:3:1: error: duplicate key `count`"), "{refused:?}");
    let refused = refusal("[shard]\ncount = 1\n[rtmp]\n[shard]\n");
    assert!(refused[0].starts_with("f:4:2: error: duplicate key `shard`"), "{refused:?}");
}

#[test]
fn cf_02_wrong_types_are_all_told_at_once() {
    let refused = refusal(
        "[shard]\ncount = \"two\"\nlatency_max = 40\nrtmp_listen = [\"nowhere\"]\n[stream]\ngop_bytes = \"5\"\n\
         [admission]\npublish = \"opn\"\n",
    );
    assert_eq!(refused.len(), 5, "{refused:?}");
    assert!(refused[0].starts_with("f:2:9: error: shard.count: invalid type: string \"two\""), "{refused:?}");
    assert!(refused[1].starts_with("f:3:15: error: shard.latency_max: invalid type: integer `40`"), "{refused:?}");
    assert!(refused[1].contains("\"5s\""), "the unit is missing and the message shows one: {refused:?}");
    assert!(refused[2].starts_with("f:4:16: error: shard.rtmp_listen:") && refused[2].contains("127.0.0.1:8081"));
    assert!(refused[3].starts_with("f:6:13: error: stream.gop_bytes: `5` is not a size"), "{refused:?}");
    assert!(refused[4].starts_with("f:8:11: error: admission.publish: unknown variant `opn`"), "{refused:?}");
}

#[test]
fn cf_01_unknown_keys_hide_no_other_mistakes() {
    let refused = refusal(
        "[shard]\ncuont = 2\nring_depth = 16\n[stream]\ngop_bytes = 5\nqueue_time = \"1ms\"\n[log]\nlevel = \"infoo\"\n\
         [[admission.jwt]]\njwks_url = \"ftp://x\"\n[[hook.ask]]\nname = \"a\"\nurl = \"backend\"\n",
    );
    for (place, key) in [
        ("2:1", "shard.cuont"),
        ("3:1", "shard.ring_depth"),
        ("5:13", "stream.gop_bytes"),
        ("6:1", "stream.queue_time"),
        ("8:1", "log.level"),
        ("10:1", "admission.jwt[0].jwks_url"),
        ("13:1", "hook.ask[0].url"),
    ] {
        let told = format!("f:{place}: error: {key}: ");
        assert!(refused.iter().any(|line| line.starts_with(&told)), "{told} is not in {refused:#?}");
    }
    assert_eq!(refused.len(), 7, "{refused:#?}");
}

#[test]
fn cf_01_what_is_misspelt_makes_no_mistakes_elsewhere() {
    // The tokens and the ledger are there, under names that cannot be read.
    let refused = refusal(
        "[api]\nlisten = \"0.0.0.0:8081\"\n[[api.token]]\ntoken = \"0123456789abcdefghijkl\"\nrole = \"read\"\n\
         [ledger]\ndirectry = \"x\"\n[[hook.tell]]\nname = \"a\"\nurl = \"http://a/\"\n",
    );
    assert_eq!(refused.len(), 2, "{refused:#?}");
}

#[test]
fn cf_02_each_wrong_rule_is_told_at_its_place() {
    let refused = refusal(
        "[[admission.keys]]\nkeys = [\"0123456789abcdefghijklmn\"]\n[[admission.keys]]\nuser = \"x\"\nkeys = [\"short\"]\n\
         [[admission.jwt]]\nsecrets = [\"short\"]\n[[admission.jwt]]\n",
    );
    for told in [
        "f:5:1: error: admission.keys[1].keys: each needs at least 22 characters",
        "f:7:1: error: admission.jwt[0].secrets: each needs at least 32 bytes",
        "f:8:1: error: admission.jwt[1]: it needs secrets",
    ] {
        assert!(refused.iter().any(|line| line.starts_with(told)), "{told} is not in {refused:#?}");
    }
    assert!(!refused.iter().any(|line| line.contains("keys[0]")), "{refused:#?}");
}

#[test]
fn cf_02_each_wrong_hook_is_told_at_its_place() {
    let refused = refusal(
        "[[hook.ask]]\nname = \"a\"\nurl = \"http://x/\"\nsecrets = [\"short\"]\n[[hook.ask]]\nname = \"b c\"\nurl = \"http://x/\"\n\
         [ledger]\ndirectory = \"x\"\n[[hook.tell]]\nname = \"a\"\nurl = \"ftp://x/\"\n",
    );
    for told in [
        "f:4:1: error: hook.ask[0].secrets[0]: ",
        "f:6:1: error: hook.ask[1].name: ",
        "f:12:1: error: hook.tell[0].url: ",
    ] {
        assert!(refused.iter().any(|line| line.starts_with(told)), "{told} is not in {refused:#?}");
    }
    let twice = "[[hook.ask]]\nname = \"a\"\nurl = \"http://x/\"\n".repeat(2);
    assert!(refusal(twice).iter().any(|line| line.starts_with("f:5:1: error: hook.ask[1].name: `a` is there twice")));
}

#[test]
fn cf_02_misspelt_values_are_sent_to_the_nearest_and_types_are_named_in_plain_words() {
    let refused = refusal(
        "[shard]\ncount = \"two\"\n[admission]\npublish = \"opne\"\nplay = \"whatever\"\n[api.datarhei]\nenabled = 1\n\
         [[hook.ask]]\nname = \"a\"\nurl = \"http://x/\"\nplay_on_failure = \"alow\"\n",
    );
    let ends = |key: &str, end: &str| refused.iter().any(|line| line.contains(key) && line.ends_with(end));
    assert!(ends("shard.count", "expected a whole number, 0 or more"), "{refused:#?}");
    assert!(ends("admission.publish", "; did you mean `open`?"), "{refused:#?}");
    assert!(ends("admission.play", "expected one of `open`, `loopback`, `deny`"), "{refused:#?}");
    assert!(ends("api.datarhei.enabled", "expected true or false"), "{refused:#?}");
    assert!(
        ends("hook.ask: unknown variant `***`, expected `deny` or `allow`", "; did you mean `allow`?"),
        "{refused:#?}"
    );
}

#[test]
fn cf_02_section_that_is_no_table_is_told() {
    assert_eq!(refusal("shard = 2\n"), ["f:1:9: error: shard: a whole number stands where a section [shard] belongs"]);
    assert_eq!(
        refusal("api.tokens = [1]\n"),
        ["f:1:15: error: api.tokens: a whole number stands where a table belongs"]
    );
}

#[test]
fn cf_02_value_out_of_range_is_told_with_the_range_and_the_reason() {
    assert_eq!(
        refusal("[shard]\nring_depth = 16\n"),
        [
            "f:2:1: error: shard.ring_depth: 16 is outside the permitted 32…4096: \
             the runtime takes at most 4,096 and stalls below 32",
            "f: warning: admission.publish: is `deny` and no rule or hook allows anybody, so nobody may publish; \
             write `publish = \"open\"` or `\"loopback\"`",
        ]
    );
}

#[test]
fn cf_02_every_rule_refuses_one_past_its_ends() {
    use sluicegate::config::check::{RULES, Unit};
    for rule in RULES {
        let write = |value: u64| {
            let value = match rule.unit {
                Unit::Count => value.to_string(),
                Unit::Bytes => format!("\"{value}B\""),
                Unit::Time => format!("\"{value}ms\""),
            };
            let (section, key) = rule.key.rsplit_once('.').unwrap();
            format!("[{section}]\n{key} = {value}\n")
        };
        let told = |value: u64| {
            let problems = match crate::load_text(write(value)) {
                Ok(_) => Vec::new(),
                Err(refused) => lines(&refused),
            };
            problems.iter().any(|line| line.contains(&format!("error: {}: ", rule.key)))
        };
        assert!(!told(rule.min) && !told(rule.max), "{} refuses an end of its own range", rule.key);
        if let Some(above) = rule.max.checked_add(1) {
            assert!(told(above), "{} accepts {above}", rule.key);
        }
        if rule.min > 1 || (rule.min == 1 && !rule.or_zero) {
            assert!(told(rule.min - 1), "{} accepts {}", rule.key, rule.min - 1);
        }
        assert_eq!(rule.or_zero || rule.min == 0, !told(0), "{} and zero", rule.key);
    }
}

#[test]
fn cf_04_unreadable_file_is_named() {
    let missing = Path::new("/nonexistent/sluicegate.toml");
    let refused = load(Some(missing), &Overrides::default(), &|_| None).unwrap_err().to_string();
    assert!(refused.starts_with("/nonexistent/sluicegate.toml: error: cannot be read: "), "{refused}");
    let folder = tempfile::tempdir().unwrap();
    let refused = load(Some(folder.path()), &Overrides::default(), &|_| None).unwrap_err().to_string();
    assert!(refused.contains("is a directory"), "{refused}");
}

#[test]
fn cf_10_missing_environment_variable_is_an_error_and_not_an_empty_text() {
    assert_eq!(
        refusal("[log]\nlevel = \"${SLUICEGATE_UNSET}\"\n"),
        ["f:2:9: error: log.level: the environment variable SLUICEGATE_UNSET is not set"]
    );
    for bad in ["${", "${}", "${a b}", "${1A}", "x${SET"] {
        assert_eq!(refusal(format!("[log]\nlevel = \"{bad}\"\n")).len(), 1, "{bad}");
    }
}

#[test]
fn environment_variables_are_put_in_texts_and_can_be_escaped() {
    let loaded = config("[[api.tokens]]\ntoken = \"a${SET}$${SET}${SET}\"\nrole = \"admin\"\n");
    let set = "0123456789abcdefghijklmnop";
    assert_eq!(loaded.api.tokens[0].token.reveal(), format!("a{set}${{SET}}{set}"));
}

#[test]
fn no_file_is_the_development_profile() {
    let loaded = load(None, &Overrides::default(), &|_| None).unwrap();
    assert_eq!(loaded.config, sluicegate::config::Config::development());
    assert!(loaded.config.shard.rtmp_listen.iter().all(|at| at.ip().is_loopback()));
    assert_eq!(loaded.config.admission.publish, sluicegate::admission::settings::Access::Open);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn open_profile_does_not_leave_the_machine_without_a_file() {
    let overrides = Overrides { rtmp_listen: vec!["0.0.0.0:1935".parse().unwrap()], ..Overrides::default() };
    let loaded = load(None, &overrides, &|_| None).unwrap();
    assert_eq!(loaded.config.admission.publish, sluicegate::admission::settings::Access::Loopback);
}

#[test]
fn a_file_keeps_the_defaults_of_the_rooms_for_what_it_does_not_say() {
    let loaded = config("[shard]\nlatency_max = \"100ms\"\n");
    let mut expected = sluicegate::config::Config::default();
    expected.shard.latency_max = Duration::from_millis(100);
    assert_eq!(loaded, expected);
    assert_eq!(config(""), sluicegate::config::Config::default());
}

#[test]
fn flags_stand_over_the_file_and_are_checked_like_it() {
    let overrides = Overrides { shards: Some(300), ..Overrides::default() };
    let refused = load(None, &overrides, &|_| None).unwrap_err().to_string();
    assert!(refused.contains("shard.count: 300 is outside the permitted 0…256"), "{refused}");
}
