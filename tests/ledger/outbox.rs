//! What is still to be told.

use std::sync::Arc;

use sluicegate::event::{Event, ServerEvent, ServerWhat, Weight};
use sluicegate::ledger::{Settings, Tell};
use sluicegate::names::{Kind, SessionId};
use sluicegate::session::{Change, What};

use crate::support::*;

fn tell(sink: &str, event_id: &str, weight: Weight, session: Option<SessionId>, body: impl Into<Vec<u8>>) -> Tell {
    Tell { sink: sink.into(), event_id: event_id.into(), weight, session, body: body.into().into() }
}

fn server(bed: &Bed) -> Event {
    Event::Server(ServerEvent { at: bed.start, what: ServerWhat::Ready })
}

#[test]
fn pages_come_in_order_and_rows_are_gone_when_they_were_told() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    for n in 0..500 {
        let tells = ["a", "b"].map(|sink| tell(sink, &n.to_string(), Weight::Other, None, format!("{sink}{n}")));
        bed.record(server(&bed), tells.into());
    }
    bed.settle();
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = bed.page("a", after, 64);
        assert!(page.len() <= 64 && page.is_sorted_by_key(|row| row.id));
        let Some(last) = page.last() else { break };
        after = last.id;
        bed.ledger.told("a", page.iter().map(|row| row.id).collect());
        seen.extend(page.into_iter().map(|row| String::from_utf8(row.body.to_vec()).unwrap()));
    }
    assert_eq!(seen, (0..500).map(|n| format!("a{n}")).collect::<Vec<_>>());
    until(|| bed.page("a", 0, 1).is_empty(), || "told rows stay".into());
    assert_eq!(bed.page("b", 0, 1_000).len(), 500, "the other sink has its own");
    bed.ledger.told("b", vec![after]);
    bed.ledger.told("a", bed.page("b", 0, 10).iter().map(|row| row.id).collect());
    let number = bed.record(server(&bed), vec![tell("a", "x", Weight::Other, None, "x")]);
    bed.wait_for(number);
    assert_eq!(bed.page("b", 0, 1_000).len(), 500, "a sink cannot take what is another's");
    bed.stop();
    let bed = Bed::new(&settings(folder.path()));
    assert_eq!((bed.page("a", 0, 9).len(), bed.page("b", 0, 1_000).len()), (1, 500), "a restart changes nothing");
    bed.stop();
}

#[test]
fn nothing_shows_before_what_is_in_a_file_that_cannot_be_opened_for_a_moment() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    // Nobody has asked for a page yet, so no file is open for readers.
    for (n, ms) in [(1, 0), (2, DAY_MS)] {
        let facts = bed.facts(n, Kind::Publish, ms);
        bed.happens(&facts, 1, ms, What::Opened);
        bed.happens(&facts, 2, ms, What::Started);
    }
    bed.settle();
    let (here, away) = (key(TODAY).path(folder.path()), folder.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    assert_eq!(bed.outbox(), [], "an older one would be passed over");
    std::fs::rename(&away, &here).unwrap();
    assert_eq!(bed.outbox().len(), 2);
    bed.stop();
}

#[test]
fn the_same_event_is_told_to_a_sink_once() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    for body in ["first", "again"] {
        bed.record(server(&bed), vec![tell("a", "same", Weight::Must, None, body)]);
    }
    bed.settle();
    let page = bed.page("a", 0, 10);
    assert_eq!((page.len(), &page[0].body[..]), (1, &b"first"[..]));
    bed.stop();
}

#[test]
fn a_newer_update_of_a_session_replaces_the_one_that_waits() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let [one, two] = [1, 2].map(|n| bed.facts(n, Kind::Play, 0));
    for facts in [&one, &two] {
        bed.happens(facts, 1, 0, What::Opened);
    }
    for seq in 2..10_u32 {
        for facts in [&one, &two] {
            let what = What::Updated(bytes(1, seq.into()));
            let change = Change { facts: Arc::clone(facts), seq, at: bed.after(u64::from(seq)), what };
            let update = tell_of(&change, Weight::Update);
            bed.record(Event::Session(change), vec![update]);
        }
        if seq % 3 == 0 {
            bed.settle();
        }
    }
    bed.settle();
    let told: Vec<String> = bed.outbox().iter().map(|row| row.event_id.to_string()).collect();
    assert_eq!(told, [format!("{}-9", one.id), format!("{}-9", two.id)]);
    assert_eq!(rows(folder.path()).iter().map(|row| (row.seq, row.tx_bytes)).collect::<Vec<_>>(), [(9, 9), (9, 9)]);
    assert_eq!(bed.status().dropped, sluicegate::ledger::Dropped::default(), "what is replaced is not dropped");
    bed.stop();
}

#[test]
fn a_full_spool_drops_updates_then_the_oldest_others_and_never_what_must_be_told() {
    let folder = folder();
    let mut bed = Bed::new(&Settings { spool_bytes: 100_000, ..settings(folder.path()) });
    let session = |n: u64| Some(SessionId::new(NOON_MS, [u8::try_from(n).unwrap(); 10]));
    let body = || vec![0; 1_000];
    for n in 0..40 {
        let tells = vec![
            tell("a", &format!("must{n}"), Weight::Must, None, body()),
            tell("a", &format!("other{n}"), Weight::Other, None, body()),
            tell("a", &format!("update{n}"), Weight::Update, session(n), body()),
            tell("b", &format!("update{n}"), Weight::Update, session(n), body()),
        ];
        bed.record(server(&bed), tells);
    }
    let weights = |bed: &Bed, sink: &str| {
        let page = bed.page(sink, 0, 10_000);
        Weight::ALL.map(|weight| page.iter().filter(|row| row.weight == weight).count())
    };
    bed.settle();
    until(|| weights(&bed, "a") == [0, 40, 40], || format!("{:?}", weights(&bed, "a")));
    assert_eq!(bed.status().dropped.tells_update, 40);
    assert_eq!(weights(&bed, "b"), [40, 0, 0], "each sink has a spool of its own");
    for n in 40..80 {
        bed.record(server(&bed), vec![tell("a", &format!("must{n}"), Weight::Must, None, body())]);
    }
    bed.settle();
    until(|| weights(&bed, "a")[1] < 40, || format!("{:?}", weights(&bed, "a")));
    let [updates, others, musts] = weights(&bed, "a");
    assert_eq!((updates, musts), (0, 80));
    assert_eq!(bed.status().dropped.tells_other, 40 - others as u64);
    let first = bed.page("a", 0, 10_000).into_iter().find(|row| row.weight == Weight::Other);
    assert!(first.is_none_or(|row| *row.event_id == *format!("other{}", 40 - others)), "the oldest went first");
    bed.stop();
}

#[test]
fn a_page_ends_at_a_few_megabytes() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    for n in 0..8 {
        bed.record(server(&bed), vec![tell("a", &n.to_string(), Weight::Must, None, vec![0; 3 << 20])]);
    }
    bed.settle();
    let page = bed.page("a", 0, 100);
    assert_eq!(page.len(), 1, "one always fits");
    assert_eq!(bed.page("a", page[0].id, 100).len(), 1);
    bed.stop();
}
