//! The guide and the sample file say what the code does.

use sluicegate::config::check::{RULES, Unit, show};
use sluicegate::config::{Config, log};

const GUIDE: &str = include_str!("../../docs/guide/configuration.md");
const SAMPLE: &str = include_str!("../../sluicegate.toml.example");

/// Lists of tables, whose elements have rows of their own.
const LISTS: [&str; 7] =
    ["api.tokens", "admission.rules", "admission.keys", "admission.signed", "admission.jwt", "hook.ask", "hook.tell"];

/// The cells of the guide's row of a key: key, default, range, what it does and costs.
fn row(key: &str) -> Vec<&'static str> {
    let start = format!("| `{key}` |");
    let line = GUIDE.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row for {key}"));
    line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect()
}

/// Every leaf of a configuration with its key.
fn leaves(path: &str, value: &toml::Value, out: &mut Vec<(String, toml::Value)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(&path, value, out);
            }
        }
        other => out.push((path.to_owned(), other.clone())),
    }
}

fn defaults() -> Vec<(String, toml::Value)> {
    let mut out = Vec::new();
    leaves("", &toml::Value::try_from(Config::default()).unwrap(), &mut out);
    out
}

#[test]
fn every_key_has_a_row_and_every_number_its_default_and_range() {
    for (key, value) in defaults() {
        let cells = row(&key);
        assert_eq!(cells.len(), 4, "{key}: {cells:?}");
        let rule = RULES.iter().find(|rule| rule.key == key);
        let number = value.as_integer().is_some()
            || value.as_str().is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(':'));
        assert_eq!(number, rule.is_some(), "{key}: every number has a permitted range");
        if let Some(rule) = rule {
            assert_eq!(cells[1], format!("`{}`", written(rule.unit, (rule.value)(&Config::default()))), "{key}");
            assert_eq!(cells[2], rule.to_string(), "{key}");
        }
    }
}

/// A default as it would be written in the file.
fn written(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Count => value.to_string(),
        Unit::Bytes | Unit::Time => format!("\"{}\"", show(unit, value)),
    }
}

#[test]
fn rows_name_keys_that_exist() {
    let keys: Vec<String> = defaults().into_iter().map(|(key, _)| key).collect();
    for line in GUIDE.lines().filter(|line| line.starts_with("| `")) {
        let key = line.trim_start_matches("| `").split('`').next().unwrap();
        let is_listed = LISTS.iter().any(|list| key.starts_with(&format!("{list}.")));
        let known = keys.iter().any(|known| known == key) || is_listed;
        assert!(known, "the guide has a row for {key}, which is no key");
    }
}

#[test]
fn sample_file_loads_and_says_the_defaults() {
    // What is commented out are defaults: with the marks taken off, the file means the default configuration,
    // except for what it says openly.
    let open: Vec<&str> = SAMPLE.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line)).collect();
    let open = open.join("\n");
    let (all, _) = sluicegate::config::load::parse(open.as_bytes(), &|_| None).unwrap();
    let (plain, _) = sluicegate::config::load::parse(SAMPLE.as_bytes(), &|_| None).unwrap();
    assert_eq!(all, plain, "a commented line says something else than the default");
    let mut expected = Config::default();
    expected.admission.publish = sluicegate::admission::settings::Access::Loopback;
    assert_eq!(plain, expected);
    for (key, _) in defaults() {
        let (_, name) = key.rsplit_once('.').unwrap();
        let has = open
            .lines()
            .any(|line| line.starts_with(&format!("{name} = ")) || line.starts_with(&format!("# {name} = ")));
        assert!(has || open.contains(&format!("# [[{key}]]")), "the sample does not show {key}");
    }
}

#[test]
fn levels_of_the_guide_are_levels() {
    let cells = row("log.level");
    for level in log::LEVELS {
        assert!(cells[2].contains(&format!("`{level}`")), "{level}");
    }
}

#[test]
fn samples_of_the_guide_are_configurations() {
    let mut samples = 0;
    for path in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide")).unwrap() {
        let path = path.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for sample in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
            std::io::Write::write_all(&mut file, sample.as_bytes()).unwrap();
            let env = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
            let loaded = sluicegate::config::load(Some(file.path()), &sluicegate::config::Overrides::default(), &env);
            assert!(loaded.is_ok(), "{}:\n{sample}\n{}", path.display(), loaded.unwrap_err());
            samples += 1;
        }
    }
    assert!(samples > 8, "{samples} samples were found");
}
