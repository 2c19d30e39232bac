//! Every state against every trigger.

use std::fmt::Write as _;

use sluicegate::session::{State, Transition, Trigger, diagram, transition};

#[test]
fn every_state_against_every_trigger() {
    let mut table = format!("{:<11}", "");
    for state in ["(none)"].into_iter().chain(State::ALL.map(State::as_str)) {
        write!(table, "{state:<15}").unwrap();
    }
    for trigger in Trigger::ALL {
        write!(table, "\n{:<11}", trigger.as_str()).unwrap();
        for from in std::iter::once(None).chain(State::ALL.map(Some)) {
            let cell = match transition(from, trigger) {
                Transition::To(state) => format!("> {}", state.as_str()),
                Transition::Stay => "stay".into(),
                Transition::Repeat => "repeat".into(),
                Transition::Illegal => "ILLEGAL".into(),
            };
            write!(table, "{cell:<15}").unwrap();
        }
    }
    let table = table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(table, @r"
               (none)         establishing   running        stalling       finished
    opened     > establishing ILLEGAL        ILLEGAL        ILLEGAL        ILLEGAL
    authorized ILLEGAL        stay           stay           repeat         repeat
    started    ILLEGAL        > running      repeat         repeat         ILLEGAL
    updated    ILLEGAL        ILLEGAL        stay           ILLEGAL        ILLEGAL
    altered    ILLEGAL        ILLEGAL        stay           ILLEGAL        ILLEGAL
    overflowed ILLEGAL        ILLEGAL        stay           ILLEGAL        ILLEGAL
    stalled    ILLEGAL        ILLEGAL        > stalling     repeat         ILLEGAL
    recovered  ILLEGAL        ILLEGAL        repeat         > running      ILLEGAL
    denied     ILLEGAL        stay           stay           stay           repeat
    closed     ILLEGAL        > finished     > finished     > finished     repeat
    ");
}

#[test]
fn opened_is_first_and_only_opened_opens() {
    for trigger in Trigger::ALL {
        let expected =
            if trigger == Trigger::Opened { Transition::To(State::Establishing) } else { Transition::Illegal };
        assert_eq!(transition(None, trigger), expected, "{trigger:?}");
    }
    for state in State::ALL {
        assert_eq!(transition(Some(state), Trigger::Opened), Transition::Illegal, "{state:?}");
    }
}

#[test]
fn closed_is_always_possible_and_always_last() {
    for state in [State::Establishing, State::Running, State::Stalling] {
        assert_eq!(transition(Some(state), Trigger::Closed), Transition::To(State::Finished), "{state:?}");
    }
    for trigger in Trigger::ALL {
        let verdict = transition(Some(State::Finished), trigger);
        assert!(matches!(verdict, Transition::Repeat | Transition::Illegal), "{trigger:?} moves a finished session");
    }
}

#[test]
fn started_is_reported_once_in_a_life() {
    let starts = State::ALL
        .into_iter()
        .filter(|state| matches!(transition(Some(*state), Trigger::Started), Transition::To(_) | Transition::Stay));
    assert_eq!(starts.collect::<Vec<_>>(), [State::Establishing]);
    // And nothing leads back to where it could be reported again.
    for state in State::ALL {
        for trigger in Trigger::ALL {
            assert_ne!(transition(Some(state), trigger), Transition::To(State::Establishing), "{state:?} {trigger:?}");
        }
    }
}

#[test]
fn the_drawing_has_an_arrow_for_each_transition_and_for_nothing_else() {
    insta::assert_snapshot!(diagram(), @r"
    stateDiagram-v2
        [*] --> Establishing : opened
        Establishing --> Establishing : authorized, denied
        Establishing --> Running : started
        Establishing --> Finished : closed
        Running --> Running : authorized, updated, altered, overflowed, denied
        Running --> Stalling : stalled
        Running --> Finished : closed
        Stalling --> Running : recovered
        Stalling --> Stalling : denied
        Stalling --> Finished : closed
        Finished --> [*]
    ");
}
