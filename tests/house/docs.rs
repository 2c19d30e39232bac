//! What the documents promise is there: links lead somewhere, and every setting is explained.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sluicegate::config::Config;
use toml::Value;

use crate::source::{files, read, root};

const CONFIGURATION: &str = "docs/guide/configuration.md";

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut findings = Vec::new();
    let documents = files("docs", &["md"]).into_iter().chain(files("perf", &["md"]));
    let readme = PathBuf::from("README.md");
    for path in documents.chain(root().join(&readme).exists().then_some(readme)) {
        for (line, target) in links(&read(&path)) {
            let file = target.split(['#', '?']).next().unwrap_or_default();
            let folder = path.parent().unwrap_or(Path::new(""));
            if !file.is_empty() && !root().join(folder).join(file).exists() {
                findings.push(format!("{}:{line}: {target}", path.display()));
            }
        }
    }
    assert!(findings.is_empty(), "dead links:\n{}", findings.join("\n"));
}

#[test]
fn every_setting_is_explained_in_the_guide() {
    assert!(root().join(CONFIGURATION).exists(), "{CONFIGURATION} is missing: it explains every setting");
    let guide = read(CONFIGURATION);
    let keys = keys(&Value::try_from(Config::default()).unwrap(), &parse::<Config>);
    assert!(keys.len() > 30, "settings were not found: {keys:?}");
    let missing: Vec<&String> = keys.iter().filter(|key| !mentions(&guide, key)).collect();
    assert!(missing.is_empty(), "{CONFIGURATION} does not explain {missing:#?}");
}

/// The targets of a document's inline links and images that lead to files of ours, with their lines; what
/// stands in code blocks is no link.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: String = content.split('`').step_by(2).collect();
        for piece in prose.split("](").skip(1) {
            let target = piece.split([')', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") && !target.starts_with('/') {
                found.push((line, target.to_owned()));
            }
        }
    }
    found
}

/// Whether `key` stands in `text` as a whole.
fn mentions(text: &str, key: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    text.match_indices(key).any(|(at, _)| {
        let after = &text[at + key.len()..];
        // A full stop may end the sentence.
        let after = after.strip_prefix('.').filter(|rest| !rest.starts_with(part)).unwrap_or(after);
        !text[..at].ends_with(part) && !after.starts_with(part)
    })
}

/// The full name of every setting. Those that are unset by default are not in the default's text, so the
/// names are asked of the reader: told a key that nobody has, it lists those that it knows.
fn keys(defaults: &Value, parse: &dyn Fn(&str) -> Result<(), String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut sections = vec![(String::new(), defaults.clone())];
    while let Some((section, defaults)) = sections.pop() {
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let error = parse(&format!("{header}no_such_setting = 1\n")).expect_err("an unknown key must be refused");
        for key in known_keys(&error) {
            let name = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            match defaults.get(&key) {
                Some(table @ Value::Table(_)) => sections.push((name, table.clone())),
                _ => found.push(name),
            }
        }
    }
    found.sort();
    found
}

/// The names in backticks behind "expected" in an error about an unknown field.
fn known_keys(error: &str) -> Vec<String> {
    let expected = error.split_once("expected").map(|(_, known)| known).unwrap_or_default();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<(), String> {
    toml::from_str::<T>(text).map(drop).map_err(|error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        let text = "See [a](A.md#b), ![c](d/e.png \"t\") and [w](https://x.example/y).\n`[f](g.md)` [h](i.md)\n\
                    ```\n[j](k.md)\n```\n[l](#m)";
        let found: Vec<(usize, String)> = links(text);
        let expected = [(1, "A.md#b"), (1, "d/e.png"), (2, "i.md"), (6, "#m")];
        assert_eq!(found, expected.map(|(line, target)| (line, target.to_owned())));
    }

    #[test]
    fn a_setting_is_mentioned_by_its_whole_name() {
        assert!(mentions("`api.bind` and", "api.bind"));
        assert!(mentions("set api.bind.", "api.bind"));
        assert!(!mentions("`api.bind_v6`", "api.bind"));
        assert!(!mentions("`my_api.bind`", "api.bind"));
        assert!(!mentions("`api.bind.port`", "api.bind"));
    }

    #[derive(Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        one: Part,
    }

    #[derive(Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Part {
        set: u8,
        unset: Option<String>,
        list: Vec<u8>,
    }

    #[test]
    fn settings_without_a_default_are_settings_too() {
        let defaults = Value::try_from(Sample::default()).unwrap();
        assert_eq!(keys(&defaults, &parse::<Sample>), ["one.list", "one.set", "one.unset"]);
    }
}
