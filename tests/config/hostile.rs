//! CF-03, CF-14: files that are no configuration.

use crate::{config, refusal};
use sluicegate::config::load::FILE_BYTES_MAX;

#[test]
fn cf_03_file_beyond_the_limit_is_refused_and_at_it_is_read() {
    let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
    let mut text = "# filler\n".repeat(limit / 9);
    text.push_str(&"#".repeat(limit - text.len()));
    assert_eq!(config(&text), sluicegate::config::Config::default());
    text.push('#');
    assert_eq!(refusal(text), ["f: error: the file is larger than 5 MiB, which no configuration is"]);
}

#[test]
fn cf_03_deep_nesting_is_refused_without_recursion_to_death() {
    for deep in [
        format!("a = {}{}\n", "[".repeat(1_000), "]".repeat(1_000)),
        format!("a = {}1{}\n", "{a=".repeat(1_000), "}".repeat(1_000)),
        format!("[{}a]\n", "a.".repeat(1_000)),
        format!("{}a = 1\n", "a.".repeat(1_000)),
        format!("a = {}\n", "[".repeat(1_000_000)),
    ] {
        let refused = refusal(deep);
        assert!(refused[0].contains("recurs"), "{refused:?}");
    }
}

#[test]
fn cf_03_binary_is_refused_at_its_place() {
    assert_eq!(refusal(b"[log]\nlevel = \"\xff\"\n"), ["f:2:10: error: the file is not UTF-8 text"]);
    assert!(refusal(b"\x7fELF\0\0\0")[0].starts_with("f:1:"));
    assert!(!refusal(vec![0; 4_096]).is_empty());
}

#[test]
fn cf_03_byte_order_mark_and_carriage_returns_are_accepted() {
    let loaded = config("\u{feff}[shard]\r\ncount = 3\r\n# end\r\n");
    assert_eq!(loaded.shard.count, 3);
    let refused = refusal("\u{feff}[shard]\r\ncont = 3\r\n");
    assert!(refused[0].starts_with("f:2:1: error: shard.cont: "), "{refused:?}");
}

#[test]
fn cf_03_a_hundred_thousand_unknown_keys_are_told_in_a_screenful() {
    let keys: Vec<String> = (0..100_000).map(|n| format!("key_{n} = 1")).collect();
    let text = keys.join("\n");
    let refused = crate::load_text(text).unwrap_err();
    let shown = refused.to_string();
    assert!(shown.lines().count() <= 26, "{}", shown.lines().count());
    assert!(shown.ends_with(" more"), "{shown}");
}

proptest::proptest! {
    #[test]
    fn cf_03_any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = sluicegate::config::load::parse(&bytes, &|_| None);
    }

    #[test]
    fn cf_03_any_toml_like_text_is_read_or_refused(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "[", "]", "[[api.tokens]]", "[shard]", "\n", "=", "\"", "${SET}", "{", "}", ".", ",", "token", "role",
            "count", "1", "api", "tokens", "1979-05-27", "0x", "'''", "\u{1b}", "é", "#", "${", "datarhei",
        ]), 0..40),
    ) {
        let text = parts.concat();
        let _ = sluicegate::config::load::parse(text.as_bytes(), &|_| Some("5s".into()));
    }
}
