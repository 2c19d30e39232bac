//! `docs/SESSIONS.md` shows what the code says: its drawings and lists are made here.

use std::fmt::Write as _;
use std::path::Path;

use sluicegate::session::{Reason, State, Transition, Trigger, diagram, transition};

const PATH: &str = "docs/SESSIONS.md";
/// Set, the tests write the document instead of checking it.
const UPDATE: &str = "SLUICEGATE_UPDATE_DOCS";

#[test]
fn the_life_cycle_is_drawn_from_its_table() {
    check("life-cycle", &format!("```mermaid\n{}```\n", diagram()));
}

#[test]
fn every_state_and_trigger_is_tabled() {
    let mut table = String::from("| | (none) |");
    for state in State::ALL {
        write!(table, " {} |", state.as_str()).unwrap();
    }
    table.push_str("\n| --- | --- | --- | --- | --- | --- |\n");
    for trigger in Trigger::ALL {
        write!(table, "| `{}` |", trigger.as_str()).unwrap();
        for from in std::iter::once(None).chain(State::ALL.map(Some)) {
            match transition(from, trigger) {
                Transition::To(state) => write!(table, " → {} |", state.as_str()).unwrap(),
                Transition::Stay => table.push_str(" stays |"),
                Transition::Repeat => table.push_str(" repeat |"),
                Transition::Illegal => table.push_str(" illegal |"),
            }
        }
        table.push('\n');
    }
    check("transitions", &table);
}

#[test]
fn every_reason_is_listed_with_its_side() {
    let mut table = String::from("| reason | side | used when |\n| --- | --- | --- |\n");
    for reason in Reason::ALL {
        writeln!(table, "| `{}` | {} | {} |", reason.as_str(), reason.side().as_str(), reason.meaning()).unwrap();
    }
    check("reasons", &table);
}

/// Compares what stands between the markers of `name` with `expected`.
fn check(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PATH);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{PATH}: {error}"));
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end: {name} -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{PATH} has no line `{}`", begin.trim_end()));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{PATH} has no line `{}`", end.trim_end()));
    if found == expected {
        return;
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    panic!(
        "{PATH} no longer shows what the code says under `{name}`. It should be:\n\n{expected}\n\
         To write it there: {UPDATE}=1 cargo test --test session documents -- --test-threads=1"
    );
}
