//! A room may name rooms on earlier rows, and none on its own row; and above the waterline nothing opens a
//! socket or a file, reads a clock or names the runtime.

use std::path::Path;

use crate::source::{Token, files, read, tokens, without_tests};

/// The rows, from the ground up. A room that is not here is not in the house.
const ROWS: &[&[&str]] = &[
    &["stdx", "names"],
    &["media"],
    &["proto", "session", "stream"],
    &["admission"],
    &["event"],
    &["adapter"],
    // ~~~ the waterline
    &["io"],
    &["shard", "ledger", "hook", "cluster"],
    &["control"],
    &["metrics"],
    &["api"],
    &["config"],
    // The door and the hall behind it: `main` may name `launch`, and nothing names `main`.
    &["launch"],
    &["main"],
];

/// The first row below the waterline.
const WATERLINE: usize = 6;

/// Rooms that see less than their row allows.
const NARROW: &[(&str, &[&str])] = &[("io", &["stdx"])];

/// What a room above the waterline may not name, and whose the word is. A word with `::` is a path.
const BELOW_THE_WATERLINE: &[&str] = &[
    // Clocks.
    "Instant::now",
    "SystemTime::now",
    ".elapsed()",
    // Sockets, files, threads, the system.
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "std::fs",
    "std::os",
    "std::env",
    "std::process",
    "thread::spawn",
    "thread::sleep",
    "File::open",
    "File::create",
    "libc",
    "socket2",
    "mio",
    // Runtimes and what brings one along.
    "glommio",
    "tokio",
    "futures_lite",
    "axum",
    "hyper",
    "reqwest",
];

/// The one place that ties the two clocks together, and its two words.
const CLOCK: (&str, &[&str]) = ("src/stdx/clock.rs", &["Instant::now", "SystemTime::now"]);

/// A file of tests beside the code that it tests. Its parent declares it under `#[cfg(test)]`, or clippy's bans on
/// `unwrap` would hold in it as well.
fn is_test_module(path: &Path) -> bool {
    path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem == "tests" || stem.ends_with("_tests"))
}

#[test]
fn rooms_look_only_at_earlier_rows() {
    let mut findings = Vec::new();
    for path in files("src", &["rs"]) {
        if path != Path::new("src/lib.rs") {
            findings.extend(upward(&path, &read(&path)));
        }
    }
    assert!(findings.is_empty(), "rooms that look the wrong way:\n{}", findings.join("\n"));
}

#[test]
fn above_the_waterline_time_is_an_argument_and_nothing_does_io() {
    let mut findings = Vec::new();
    for path in files("src", &["rs"]) {
        if path != Path::new("src/lib.rs") && !is_test_module(&path) {
            findings.extend(wet(&path, &read(&path)));
        }
    }
    assert!(findings.is_empty(), "words from below the waterline:\n{}", findings.join("\n"));
}

#[test]
fn the_map_in_lib_has_every_room_of_the_house() {
    let source = tokens(&read("src/lib.rs"));
    let declared: Vec<&str> =
        source.windows(2).filter(|pair| pair[0].text == "mod").map(|pair| pair[1].text.as_str()).collect();
    for room in declared {
        assert!(row(room).is_some(), "`{room}` is declared in src/lib.rs and has no row");
    }
}

/// Every look of the file at `path` that the rows forbid.
fn upward(path: &Path, source: &str) -> Vec<String> {
    let (module, room) = place(path);
    let Some(own) = row(&room) else { return vec![format!("{}: the room `{room}` has no row", path.display())] };
    let narrow = NARROW.iter().find(|(narrow, _)| *narrow == room);
    let mut findings = Vec::new();
    for Token { text: seen, line } in named_rooms(&module, &tokens(source)) {
        if seen == room {
            continue;
        }
        let allowed = match (narrow, row(&seen)) {
            (Some((_, only)), _) => only.contains(&seen.as_str()),
            (None, Some(row)) => row < own,
            (None, None) => false,
        };
        if !allowed {
            findings.push(format!("{}:{line}: `{room}` may not name `{seen}`", path.display()));
        }
    }
    findings
}

/// Every word in the file at `path` that belongs below the waterline, if the file is above it.
fn wet(path: &Path, source: &str) -> Vec<String> {
    let (_, room) = place(path);
    if row(&room).is_none_or(|row| row >= WATERLINE) {
        return Vec::new();
    }
    let words = without_tests(&tokens(source));
    let mut findings = Vec::new();
    for forbidden in BELOW_THE_WATERLINE {
        if path == Path::new(CLOCK.0) && CLOCK.1.contains(forbidden) {
            continue;
        }
        let parts: Vec<Token> = tokens(forbidden);
        let hits = words
            .windows(parts.len())
            .filter(|window| window.iter().map(|token| &token.text).eq(parts.iter().map(|token| &token.text)));
        findings.extend(hits.map(|hit| format!("{}:{}: `{forbidden}` in `{room}`", path.display(), hit[0].line)));
    }
    findings
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&room))
}

/// The module that a file is, and the room it belongs to.
fn place(path: &Path) -> (Vec<String>, String) {
    let mut module: Vec<String> = path
        .with_extension("")
        .components()
        .skip(1)
        .map(|part| part.as_os_str().to_str().unwrap().to_owned())
        .collect();
    let room = module[0].clone();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    if room == "main" {
        module.clear();
    }
    (module, room)
}

/// The rooms that a file names, by `crate::`, by the package's name, or by climbing out with `super`. A name
/// that begins with a capital is an item of the crate's root and not a room; `*` and `self` are every room.
fn named_rooms(module: &[String], tokens: &[Token]) -> Vec<Token> {
    let mut found = Vec::new();
    // One entry for each open brace: whether it belongs to an inline module.
    let mut blocks = Vec::new();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "{" => blocks.push(at >= 2 && text(at - 2) == "mod"),
            "}" => {
                blocks.pop();
            }
            // `pub(crate)` and `pub(super)` name nobody.
            "crate" | "sluicegate" if text(at + 1) == "::" && (at == 0 || text(at - 1) != "::") => {
                heads(tokens, at + 2, &mut found);
            }
            "crate" if text(at + 1) == "as" => found.push(Token { text: "*".into(), line: tokens[at].line }),
            "super" if at == 0 || text(at - 1) != "::" => {
                let depth = module.len() + blocks.iter().filter(|is_module| **is_module).count();
                let mut climbed = 1;
                while text(at + 1) == "::" && text(at + 2) == "super" {
                    climbed += 1;
                    at += 2;
                }
                if climbed >= depth && text(at + 1) == "::" {
                    heads(tokens, at + 2, &mut found);
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first names of the paths at `at`: one, or each of a group in braces.
fn heads(tokens: &[Token], at: usize, found: &mut Vec<Token>) {
    let Some(first) = tokens.get(at) else { return };
    if first.text != "{" {
        found.extend(is_room(first).then(|| first.clone()));
        return;
    }
    let (mut depth, mut expected) = (0, false);
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                expected = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
            "," => expected = depth == 1,
            _ => {
                if expected {
                    found.extend(is_room(token).then(|| token.clone()));
                }
                expected = false;
            }
        }
    }
}

fn is_room(token: &Token) -> bool {
    !token.text.starts_with(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, source: &str) -> Vec<String> {
        upward(Path::new(path), source)
    }

    #[test]
    fn an_upward_look_is_caught_however_it_is_written() {
        for source in [
            "use crate::control::View;",
            "fn f() { crate::control::go() }",
            "use crate::{names::Kind, control::{View, Handle}};",
            "use crate::{names::{Kind, Role}, control};",
            "pub(crate) use crate::control as c;",
            "use super::super::control::View;",
            "mod tests { use super::super::super::control::View; }",
            "mod tests { fn f() { if true { super::super::super::control::go() } } }",
            "use super::super::{control, names};",
            "type X = Vec<crate::control::View>;",
            "use sluicegate::control::View;",
        ] {
            let found = findings("src/session/table.rs", source);
            assert_eq!(found, ["src/session/table.rs:1: `session` may not name `control`"], "{source}");
        }
    }

    #[test]
    fn a_look_at_the_own_row_is_caught() {
        assert_eq!(findings("src/session/mod.rs", "use crate::stream::Live;").len(), 1);
        assert_eq!(
            findings("src/stream/mod.rs", "\n\nuse super::session::Table;"),
            ["src/stream/mod.rs:3: `stream` may not name `session`"]
        );
        assert_eq!(findings("src/names.rs", "use crate::stdx::clock;").len(), 1);
    }

    #[test]
    fn looks_downward_and_within_the_room_are_fine() {
        for source in [
            "use crate::session::State; use crate::names::{Kind, Role}; use crate::stdx::clock::WallAnchor;",
            "use super::state::State; use super::super::session::Facts; use super::super::names::Kind;",
            "mod tests { use super::*; use super::super::facts::Facts; }",
            "pub(crate) fn f() {} pub(super) fn g() {} pub(in crate::session) fn h() {}",
            "// use crate::control::View;\nfn f() -> &'static str { \"crate::control\" }",
            "/// See [`View`](crate::control::View).\nfn f() {}",
        ] {
            assert_eq!(findings("src/session/table.rs", source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn the_whole_crate_at_once_is_no_room() {
        for source in ["use crate::*;", "use crate as everything;", "use crate::{self as everything};"] {
            assert_eq!(findings("src/session/table.rs", source).len(), 1, "{source}");
        }
    }

    #[test]
    fn a_room_without_a_row_is_caught() {
        assert_eq!(findings("src/util/mod.rs", ""), ["src/util/mod.rs: the room `util` has no row"]);
        assert_eq!(findings("src/api/mod.rs", "use crate::util::f;").len(), 1);
    }

    #[test]
    fn io_sees_stdx_only_and_main_sees_launch() {
        assert_eq!(findings("src/io/mod.rs", "use crate::stdx::clock;"), Vec::<String>::new());
        assert_eq!(findings("src/io/mod.rs", "use crate::names::ShardId;").len(), 1);
        assert_eq!(findings("src/main.rs", "use sluicegate::launch; use sluicegate::config::Config;").len(), 0);
        assert_eq!(findings("src/launch.rs", "use crate::config::Config;").len(), 0);
        assert_eq!(findings("src/config/mod.rs", "use crate::launch::run;").len(), 1);
        assert_eq!(findings("src/launch.rs", "mod main_loop { use super::super::api::serve; }").len(), 0);
    }

    #[test]
    fn a_clock_or_a_socket_above_the_waterline_is_caught() {
        for source in [
            "fn f() { let t = std::time::Instant::now(); }",
            "fn f() { let t = SystemTime :: now(); }",
            "fn f(since: Instant) { since.elapsed(); }",
            "use tokio::sync::mpsc;",
            "use std::net::{IpAddr, TcpStream};",
            "use glommio::LocalExecutor;",
            "fn f() { std::fs::read(\"x\"); }",
        ] {
            assert_eq!(wet(Path::new("src/session/table.rs"), source).len(), 1, "{source}");
            assert_eq!(wet(Path::new("src/shard/mod.rs"), source).len(), 0, "below the waterline: {source}");
        }
    }

    #[test]
    fn tests_may_read_a_clock_and_the_anchor_must() {
        let source = "fn f(now: Instant) {} #[cfg(test)] mod tests { fn f() { Instant::now(); } }";
        assert_eq!(wet(Path::new("src/session/table.rs"), source), Vec::<String>::new());
        let clock = "fn now() { Instant::now(); SystemTime::now(); }";
        assert_eq!(wet(Path::new("src/stdx/clock.rs"), clock), Vec::<String>::new());
        assert_eq!(wet(Path::new("src/stdx/ids.rs"), clock).len(), 2);
    }
}
