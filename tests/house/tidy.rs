//! Nothing half done, nothing switched off, nothing that only one machine understands.

use std::path::PathBuf;

use crate::source::{files, read, tokens};

// Written in two parts where this file would otherwise find itself.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
const MACHINE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/tmp/", "wt"),
    concat!("/tmp/", "tgt"),
];

fn rust(folders: &[&str]) -> impl Iterator<Item = (PathBuf, String)> {
    let paths: Vec<PathBuf> = folders.iter().flat_map(|folder| files(folder, &["rs"])).collect();
    paths.into_iter().map(|path| {
        let text = read(&path);
        (path, text)
    })
}

#[test]
fn nothing_is_left_to_be_done_later() {
    let mut findings = Vec::new();
    for (path, text) in rust(&["src", "tools"]) {
        for (line, content) in (1..).zip(text.lines()) {
            if MARKS.iter().any(|mark| content.contains(mark)) {
                findings.push(format!("{}:{line}: {}", path.display(), content.trim()));
            }
        }
        findings.extend(stubs(&text).into_iter().map(|(line, name)| format!("{}:{line}: {name}!", path.display())));
    }
    assert!(findings.is_empty(), "unfinished:\n{}", findings.join("\n"));
}

#[test]
fn no_test_is_switched_off() {
    let mut findings = Vec::new();
    for (path, text) in rust(&["src", "tools", "tests", "benches"]) {
        findings.extend(ignored(&text).into_iter().map(|line| format!("{}:{line}", path.display())));
    }
    assert!(findings.is_empty(), "tests that do not run:\n{}", findings.join("\n"));
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    let mut findings = Vec::new();
    let paths = ["src", "tools", "tests", "benches", "docs", "perf"]
        .iter()
        .flat_map(|folder| files(folder, &["rs", "md", "toml", "sh", "py", "html", "js", "css", "txt", "json", "yml"]));
    for path in paths.chain(files("", &["md", "toml"])) {
        // The working folder of the measurements is not part of the package.
        if path.starts_with("target") || path.starts_with("perf/work") {
            continue;
        }
        for (line, content) in (1..).zip(read(&path).lines()) {
            if names_machine_path(content) {
                findings.push(format!("{}:{line}: {}", path.display(), content.trim()));
            }
        }
    }
    assert!(findings.is_empty(), "paths of one machine:\n{}", findings.join("\n"));
}

/// Where the code stands for code that is not written.
fn stubs(source: &str) -> Vec<(usize, String)> {
    let tokens = tokens(source);
    tokens
        .windows(2)
        .filter(|pair| matches!(pair[0].text.as_str(), "todo" | "unimplemented") && pair[1].text == "!")
        .map(|pair| (pair[0].line, pair[0].text.clone()))
        .collect()
}

/// Where a test carries the attribute that keeps it from running, with a reason or without.
fn ignored(source: &str) -> Vec<usize> {
    let tokens = tokens(source);
    tokens
        .windows(3)
        .filter(|three| three[0].text == "#" && three[1].text == "[" && three[2].text == "ignore")
        .map(|three| three[0].line)
        .collect()
}

/// Whether one of the paths stands in the line, as a path and not as the end of another.
fn names_machine_path(line: &str) -> bool {
    MACHINE_PATHS.iter().any(|path| {
        line.match_indices(path).any(|(at, _)| {
            !line[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | '-' | '.' | '}'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unfinished_is_found() {
        assert_eq!(stubs("fn f() {\n todo!(\"later\") }"), [(2, "todo".to_owned())]);
        assert_eq!(stubs("fn f() { unimplemented!() }").len(), 1);
        assert_eq!(stubs("// todo!()\nfn todo() { let text = \"todo!()\"; }"), []);
    }

    #[test]
    fn a_test_that_is_switched_off_is_found() {
        assert_eq!(ignored("#[test]\n#[ignore]\nfn f() {}"), [2]);
        assert_eq!(ignored("#[ignore = \"slow\"] fn f() {}"), [1]);
        assert_eq!(ignored("// #[ignore]\nfn ignore() {}"), Vec::<usize>::new());
    }

    #[test]
    fn a_path_of_one_machine_is_found_and_a_part_of_another_is_not() {
        let path = MACHINE_PATHS[1];
        assert!(names_machine_path(&format!("see `{path}notes`")));
        assert!(names_machine_path(&format!("{path}notes")));
        assert!(!names_machine_path(&format!("perf{path}notes")));
    }
}
