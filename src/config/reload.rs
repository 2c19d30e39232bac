//! What of a new configuration takes effect while the server runs, and how two configurations differ.

use std::collections::BTreeSet;

use crate::admission;
use crate::api;
use crate::config::{Config, LogSettings};
use crate::hook;
use crate::proto;
use crate::shard;

impl Config {
    /// The configuration of a server that runs `self` and was given `new`: everything that can change while it runs
    /// is of `new`, and what needs a restart is still of `self`. A setting that is not named here needs one, so a new
    /// setting is never half applied.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let now = self.clone();
        Self {
            shard: shard::Settings {
                count: now.shard.count,
                rtmp_listen: now.shard.rtmp_listen,
                backlog: now.shard.backlog,
                connections_max: now.shard.connections_max,
                // The table of sources is one for all shards and has its limits from the start.
                connections_per_ip: now.shard.connections_per_ip,
                unauthenticated_per_ip: now.shard.unauthenticated_per_ip,
                unauthenticated_percent: now.shard.unauthenticated_percent,
                accept_rate_per_ip: now.shard.accept_rate_per_ip,
                auth_failures_per_ip: now.shard.auth_failures_per_ip,
                source_table: now.shard.source_table,
                accept_rate: now.shard.accept_rate,
                memory_max: now.shard.memory_max,
                loop_lag_max: now.shard.loop_lag_max,
                ring_depth: now.shard.ring_depth,
                ..new.shard.clone()
            },
            // One packaged copy of a frame serves every player, so all of them are told one chunk size.
            rtmp: proto::rtmp::Settings { out_chunk_size: now.rtmp.out_chunk_size, ..new.rtmp.clone() },
            stream: new.stream.clone(),
            sessions: new.sessions.clone(),
            admission: admission::Settings {
                bans_max: now.admission.bans_max,
                cache_entries: now.admission.cache_entries,
                limits: now.admission.limits,
                ..new.admission.clone()
            },
            hook: with_secrets(now.hook, &new.hook),
            api: api::Settings { tokens: new.api.tokens.clone(), rate: new.api.rate, ..now.api },
            log: LogSettings { level: new.log.level.clone(), ..now.log },
            ..now
        }
    }

    /// The keys in which two configurations differ, in alphabetical order. Values are not told, because some are
    /// secrets.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (leaves(self), leaves(other));
        // Secrets look alike as text.
        let secret = [
            ("admission.jwt", self.admission.jwt != other.admission.jwt),
            ("admission.keys", self.admission.keys != other.admission.keys),
            ("admission.signed", self.admission.signed != other.admission.signed),
            ("api.tokens", self.api.tokens != other.api.tokens),
            ("hook.ask", self.hook.ask != other.hook.ask),
            ("hook.tell", self.hook.tell != other.hook.tell),
        ];
        let secret = secret.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned());
        let keys: BTreeSet<String> =
            ours.symmetric_difference(&theirs).map(|(key, _)| key.clone()).chain(secret).collect();
        keys.into_iter().collect()
    }
}

/// Hooks as they run, with the secrets that those of the same name have now.
fn with_secrets(mut now: hook::Settings, new: &hook::Settings) -> hook::Settings {
    for ask in &mut now.ask {
        if let Some(named) = new.ask.iter().find(|named| named.name == ask.name) {
            ask.secrets.clone_from(&named.secrets);
        }
    }
    for tell in &mut now.tell {
        if let Some(named) = new.tell.iter().find(|named| named.name == tell.name) {
            tell.secrets.clone_from(&named.secrets);
        }
    }
    now
}

/// Every setting as its key and its value in text.
fn leaves(config: &Config) -> BTreeSet<(String, String)> {
    let mut out = BTreeSet::new();
    // Our own structs have text keys only, which is all that could fail.
    for (section, value) in toml::Table::try_from(config).unwrap_or_default() {
        add_leaves(section, value, &mut out);
    }
    out
}

/// Sections are two deep at most, and so is this.
fn add_leaves(key: String, value: toml::Value, out: &mut BTreeSet<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                add_leaves(format!("{key}.{name}"), value, out);
            }
        }
        value => {
            out.insert((key, value.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::settings::Access;
    use crate::api::settings::{Role, Token};
    use crate::config::Overrides;
    use crate::config::load::parse;
    use crate::stdx::units::Secret;

    fn read(text: &str) -> Config {
        parse(text.as_bytes(), &|_| None).unwrap().0
    }

    #[test]
    fn what_can_change_is_taken_and_the_rest_waits_for_a_restart() {
        let running = read("[shard]\ncount = 2\nlatency_max = \"50ms\"\n[admission]\nplay = \"open\"");
        let new = read(
            "[shard]\ncount = 4\nlatency_max = \"60ms\"\n[admission]\nplay = \"deny\"\n[control]\nfinished_kept = 7\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"\n[api.datarhei]\nenabled = false",
        );
        let effective = running.reloaded(&new);
        assert_eq!(running.differences(&effective), ["admission.play", "log.level", "shard.latency_max"]);
        assert_eq!(
            effective.differences(&new),
            ["api.datarhei.enabled", "control.finished_kept", "log.format", "shard.count"]
        );
        assert_eq!((effective.shard.count, effective.shard.latency_max.as_millis()), (2, 60));
        assert_eq!(effective.admission.play, Access::Deny);
        // Once more changes nothing more.
        assert_eq!(effective.reloaded(&new), effective);
        assert_eq!(new.reloaded(&new), new);
        assert!(new.differences(&new).is_empty());
    }

    #[test]
    fn lists_differ_as_a_whole_and_tokens_differ_though_they_are_secret() {
        let running = Config::default();
        let mut new = running.clone();
        new.sessions.vhosts = vec!["a.example".into()];
        new.api.tokens = vec![Token { token: Secret::new("0123456789abcdefghijkl".into()), role: Role::Read }];
        let mut other = new.clone();
        other.api.tokens[0].token = Secret::new("lkjihgfedcba9876543210".into());
        assert_eq!(running.differences(&new), ["api.tokens", "sessions.vhosts"]);
        assert_eq!(new.differences(&other), ["api.tokens"]);
        assert_eq!(new.reloaded(&other), other);
    }

    #[test]
    fn secrets_of_hooks_differ_though_they_look_alike() {
        let ask = |secret| read(&format!("[[hook.ask]]\nname = \"a\"\nurl = \"http://a/\"\nsecrets = [\"{secret}\"]"));
        let (running, new) = (ask("0123456789abcdefghijkl"), ask("lkjihgfedcba9876543210"));
        assert_eq!(running.differences(&new), ["hook.ask"]);
        assert!(new.differences(&new.clone()).is_empty());
        // They are taken at once; where the hook is, and which there are, waits.
        assert_eq!(running.reloaded(&new), new);
        let mut moved = new.clone();
        moved.hook.ask[0].url = "http://b/".into();
        assert_eq!(running.reloaded(&moved), new);
    }

    #[test]
    fn secrets_of_tokens_differ_though_they_look_alike() {
        for (key, rule, other) in [
            ("admission.keys", "keys = [\"0123456789abcdef\"]", "keys = [\"fedcba9876543210\"]"),
            ("admission.signed", "secrets = [\"0123456789abcdef\"]", "secrets = [\"fedcba9876543210\"]"),
            (
                "admission.jwt",
                "secrets = [\"0123456789abcdef0123456789abcdef\"]",
                "secrets = [\"fedcba9876543210fedcba9876543210\"]",
            ),
        ] {
            let (running, new) = (read(&format!("[[{key}]]\n{rule}")), read(&format!("[[{key}]]\n{other}")));
            assert_eq!(running.differences(&new), [key]);
            assert_eq!(running.reloaded(&new), new, "{key} is taken by a reload");
            assert!(new.differences(&new.clone()).is_empty());
        }
    }

    #[test]
    fn cf_13_every_setting_is_documented_as_taken_at_a_reload_or_at_a_restart() {
        // Every number of the configuration is one more than it was, so every key that takes it shows.
        let running = Config::default();
        let mut new = toml::Table::try_from(&running).unwrap();
        new.iter_mut().for_each(|(_, value)| change(value));
        new["admission"]["duplicate_publish"] = "reject".into();
        new["admission"]["publish"] = "open".into();
        new["admission"]["play"] = "deny".into();
        new["log"]["level"] = "warn".into();
        new["log"]["format"] = "json".into();
        let mut new: Config = new.try_into().unwrap();
        Overrides { rtmp_listen: vec!["127.0.0.1:1".parse().unwrap()], ..Overrides::default() }.apply(&mut new);
        new.api.listen = "127.0.0.1:2".parse().unwrap();
        new.api.tokens = vec![Token { token: Secret::new("0123456789abcdefghijkl".into()), role: Role::Read }];
        new.sessions.vhosts = vec!["a.example".into()];
        let effective = running.reloaded(&new);
        let waiting = effective.differences(&new);
        let guide = include_str!("../../docs/guide/configuration.md");
        let section = guide.split("## Reloading").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
        let told: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("* `")?.split('`').next()).collect();
        for key in running.differences(&effective) {
            assert!(!told.iter().any(|it| covers(it, &key)), "{key} is taken by a reload");
        }
        for key in &waiting {
            assert!(told.iter().any(|it| covers(it, key)), "{key} needs a restart, and the guide does not say so");
        }
    }

    /// `control.*` means everything of a section.
    fn covers(told: &str, key: &str) -> bool {
        told == key || told.strip_suffix('*').is_some_and(|section| key.starts_with(section))
    }

    /// Another value of the same type, if a number, a time, a size or a flag.
    fn change(value: &mut toml::Value) {
        match value {
            toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| change(value)),
            toml::Value::Integer(number) => *number += 1,
            toml::Value::Boolean(flag) => *flag = !*flag,
            toml::Value::String(text) if text.ends_with("ms") || text.ends_with('s') || text.ends_with('m') => {
                *text = "77ms".into();
            }
            toml::Value::String(text) if text.ends_with('B') => *text = "77777B".into(),
            _ => {}
        }
    }
}
