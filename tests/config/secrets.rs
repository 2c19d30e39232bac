//! AP-14, CF-09: secrets stay secret, also in what is said about a wrong file.

use crate::{config, load_mode, load_text, refusal};

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2";

#[test]
fn ap_14_no_message_shows_a_token_whatever_is_wrong_around_it() {
    for text in [
        format!("[[api.tokens]]\ntoken = \"{SECRET}\"\nrole = \"{SECRET}\"\n"),
        format!("[[api.tokens]]\ntoken = [\"{SECRET}\"]\nrole = \"read\"\n"),
        format!("[[api.tokens]]\ntoken = {{ x = \"{SECRET}\" }}\nrole = \"read\"\n"),
        format!("[[api.tokens]]\ntoken = \"{SECRET}\"\n"),
        format!("[[api.tokens]]\ntokens = \"{SECRET}\"\nrole = \"read\"\n"),
        format!("[[api.tokens]]\ntoken = \"{SECRET}\nrole = \"read\"\n"),
        format!("[[api.tokens]]\ntoken = \"{SECRET} with a blank\"\nrole = \"read\"\n"),
        format!("[[admission.keys]]\nkeys = \"{SECRET}\"\n"),
        format!("[[admission.keys]]\nkeys = [\"{SECRET}\", 7]\n"),
        format!("[[admission.keys]]\nkeys = [\"{SECRET}\"]\nkinds = [\"{SECRET}\"]\n"),
        format!("[[admission.keys]]\nkeys = [\"hunter2\"]\nuser = \"{SECRET}\"\n"),
        format!("[[admission.signed]]\nsecret = [\"{SECRET}\"]\n"),
        format!("[[admission.jwt]]\nsecrets = [\"hunter2-hunter2-hunter2-hu\"]\nparameter = \"{SECRET}\"\n"),
        format!("[[admission.jwt]]\nsecrets = [\"base64:{SECRET}!\"]\n"),
        format!("[[admission.jwt]]\nsecrets = {{ x = \"{SECRET}\" }}\n"),
        format!("[api]\ntokens = \"{SECRET}\"\n"),
        format!("[api]\ntokens = [\"{SECRET}\"]\n"),
        format!("[api]\ntoken = \"{SECRET}\"\n"),
        format!("[api.tokens]\ntoken = \"{SECRET}\"\nrole = \"read\"\n"),
        format!("api = \"{SECRET}\"\n"),
        "[[admission.keys]]\nkeys = [\"${SET}\"]\nkinds = [\"hunter2\\\"\\n\"]\n".to_owned(),
        format!(
            "[[api.tokens]]\ntoken = \"{SECRET}\"\nrole = \"read\"\n[[api.tokens]]\ntoken = \"{SECRET}\"\nrole = \"read\"\n"
        ),
    ] {
        let refused = load_text(&text).expect_err(&text);
        let shown = format!("{refused} {refused:?}");
        assert!(!shown.contains("hunter2"), "{text}\n{shown}");
    }
}

#[test]
fn ap_14_number_where_a_token_belongs_is_not_shown() {
    let refused = refusal("[[api.tokens]]\ntoken = 8400131\nrole = \"read\"\n");
    assert_eq!(refused, ["f:2:9: error: api.tokens.token: a whole number stands where a text belongs"]);
}

#[test]
fn ap_14_number_where_a_list_has_secrets_is_not_shown() {
    for (written, told) in [
        ("[[admission.keys]]\nkeys = [1234567890123456789]\n", "f:2:9: error: admission.keys.keys: a whole number"),
        ("[[admission.keys]]\nkeys = 1234567890123456789\n", "f:2:8: error: admission.keys.keys: a whole number"),
        (
            "[[admission.signed]]\nsecrets = [\"${SET}\", 98765432109876.54321]\n",
            "f:2:22: error: admission.signed.secrets: a fraction",
        ),
        ("[[admission.jwt]]\nsecrets = [2026-11-20]\n", "f:2:12: error: admission.jwt.secrets: a date"),
        ("[[hook.ask]]\nsecrets = [1234567]\n", "f:2:12: error: hook.ask.secrets: a whole number"),
    ] {
        let refused = refusal(written);
        assert!(refused.iter().any(|line| line.starts_with(told)), "{refused:?}");
        let shown = refused.join(" ");
        assert!(!shown.contains("123456") && !shown.contains("98765") && !shown.contains("2026"), "{shown}");
    }
}

#[test]
fn ap_14_user_and_password_in_the_url_of_a_key_set_are_refused_and_not_shown() {
    let refused = refusal("[[admission.jwt]]\njwks_url = \"https://u:pa55word@x/\"\n").join(" ");
    assert!(refused.contains("jwks_url: a user or password in a URL ends up in logs"), "{refused}");
    assert!(!refused.contains("pa55word"), "{refused}");
}

#[test]
fn ap_14_short_token_is_told_by_its_number_and_length() {
    let refused = refusal("[admission]\npublish = \"loopback\"\n[[api.tokens]]\ntoken = \"short\"\nrole = \"read\"\n");
    assert_eq!(refused.len(), 1, "{refused:?}");
    let told = "f:4:1: error: api.tokens[0].token: token 1 has 5 characters and needs at least 22";
    assert!(refused[0].starts_with(told), "{refused:?}");
}

#[test]
fn ap_02_token_that_is_long_but_not_random_is_refused() {
    let text = format!("[[api.tokens]]\ntoken = \"{}\"\nrole = \"read\"\n", "ab".repeat(20));
    let refused = refusal(text);
    assert!(
        refused[0].starts_with("f:2:1: error: api.tokens[0].token: ") && !refused[0].contains("abab"),
        "{refused:?}"
    );
}

#[test]
fn ap_14_value_from_the_environment_is_named_and_not_shown() {
    let refused = refusal("[shard]\nlatency_max = \"${SET}\"\n");
    assert!(refused[0].contains("`${SET}` is not a duration"), "{refused:?}");
    assert!(!refused[0].contains("0123456789"), "{refused:?}");
}

#[test]
fn ap_14_configuration_prints_without_its_secrets() {
    let loaded = config(&format!("[[api.tokens]]\ntoken = \"{SECRET}\"\nrole = \"read\"\n"));
    let shown = format!("{loaded:?} {} {}", toml::to_string(&loaded).unwrap(), serde_json::to_string(&loaded).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("***"));
    assert_eq!(loaded.api.tokens[0].token.reveal(), SECRET);
}

#[test]
fn cf_09_secret_in_a_file_that_everybody_may_read_is_a_warning() {
    let text = format!("[admission]\npublish = \"loopback\"\n[[api.tokens]]\ntoken = \"{SECRET}\"\nrole = \"read\"\n");
    let warned = |text: &str, mode| {
        let warnings = load_mode(text, mode).unwrap().warnings;
        warnings.iter().any(|problem| problem.key == "api.tokens" && problem.message.contains("chmod"))
    };
    assert!(warned(&text, 0o644));
    assert!(!warned(&text, 0o640));
    assert!(!warned(&text.replace(SECRET, "${SET}"), 0o644), "the environment holds the secret, not the file");
    assert!(!warned("[admission]\npublish = \"loopback\"\n", 0o644));
}

#[test]
fn cf_09_the_warning_names_the_setting_with_the_secret() {
    let text = format!("[admission]\npublish = \"deny\"\n[[admission.keys]]\nkeys = [\"${{SET}}\", \"{SECRET}\"]\n");
    let warned = |text: &str| {
        let warnings = load_mode(text, 0o644).unwrap().warnings;
        warnings.iter().any(|problem| problem.key == "admission.keys" && problem.message.contains("chmod"))
    };
    assert!(warned(&text));
    assert!(!warned(&text.replace(SECRET, "${SET}${SET}")));
}
