//! What the encoder says, held against the schema of the guide.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate::event::{Attempt, Encode, Event, ServerEvent, ServerWhat, StreamEvent, StreamWhat, Wanted, Weight};
use sluicegate::hook::{Question, Webhook, Why, webhook};
use sluicegate::names::{Kind, Protocol, ShardId};
use sluicegate::session::{Change, CloseReason, Counters, Facts, Reason, What};
use sluicegate::stdx::clock::WallAnchor;

use crate::support::{facts, question, session};

const SCHEMA: &str = include_str!("../../docs/guide/hooks.schema.json");
const GUIDE: &str = include_str!("../../docs/guide/hooks.md");

fn identified() -> Facts {
    let pair = |name: &str, value: &str| (name.into(), value.into());
    Facts { user: Some("anna".into()), labels: Arc::new([pair("plan", "gold"), pair("a", "\"")]), ..facts() }
}

/// One of each event there is, and what else the encoder can say about it.
fn events() -> Vec<Event> {
    let at = Instant::now();
    let counters = Counters { rx_bytes: 1, queue_peak_bytes: u64::MAX, ..Counters::default() };
    let no = CloseReason::with(Reason::AuthDenied, "hook");
    let whats = [
        What::Opened,
        What::Authorized,
        What::Started,
        What::Updated(counters),
        What::Altered,
        What::Overflowed { dropped_frames: 7 },
        What::Stalled,
        What::Recovered,
        What::Denied(no),
        What::Closed(no, counters),
        What::Closed(Reason::ServerCrash.into(), counters),
    ];
    let mut events = Vec::new();
    for facts in
        [facts(), identified(), Facts { query: None, user_agent: None, referrer: None, tc_url: None, ..facts() }]
    {
        let facts = Arc::new(facts);
        let change = |(seq, what)| Event::Session(Change { facts: Arc::clone(&facts), seq, at, what });
        events.extend((1..).zip(whats).map(change));
    }
    let online = StreamWhat::Online { publisher: session(1), shard: ShardId(0), resumed: true };
    let stream = |what| Event::Stream(StreamEvent { key: facts().key, at, what });
    let offline = |reason: Reason| StreamWhat::Offline { publisher: session(1), reason: reason.into() };
    let offline = [offline(Reason::StreamEnded), offline(Reason::ServerCrash)];
    events.extend([online, StreamWhat::Idle].into_iter().chain(offline).map(stream));
    let remote = "[2001:db8::1]:5000".parse().unwrap();
    let attempt = |kind| {
        Event::Attempt(Attempt {
            protocol: Protocol::Rtmp,
            kind,
            remote,
            at,
            reason: Reason::Banned.into(),
            wanted: Wanted::default(),
        })
    };
    events.extend([None, Some(Kind::Push)].map(attempt));
    events.extend([ServerWhat::Ready, ServerWhat::Draining].map(|what| Event::Server(ServerEvent { at, what })));
    events
}

fn encode(event: &Event) -> (String, Value) {
    let clock = WallAnchor::at(event.at(), Duration::from_millis(1_795_155_521_500));
    let encoded = Webhook::new("edge-1", "start").encode(event, 77, &clock).unwrap();
    assert_eq!(encoded.weight, Weight::of(event));
    let value: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(value["event_id"], encoded.event_id.as_str());
    (encoded.event_id, value)
}

/// Holds documents against definitions of the schema with an independent validator; each is valid or not, as it says.
fn validate(documents: &[(&str, Value, bool)]) {
    let program = "import json, sys\nfrom jsonschema import Draft202012Validator as V\n\
        schema, documents = json.load(sys.stdin)\nV.check_schema(schema)\n\
        for name, document, good in documents:\n    \
            found = [error.message for error in V({'$ref': '#/$defs/' + name, '$defs': schema['$defs']}).iter_errors(document)]\n    \
            assert (not found) == good, (name, document, found)\n    \
            if name in ('event', 'batch', 'ask'):\n        assert V(schema).is_valid(document) == good, (name, document)\n";
    // Beside the fuzzer of the API, which needs the validator too.
    let python = std::env::var("SLUICEGATE_SCHEMATHESIS")
        .map_or_else(|_| "python3".into(), |path| std::path::Path::new(&path).with_file_name("python"));
    let mut child = Command::new(&python)
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("the peer {} is needed: {error}", python.display()));
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    child.stdin.take().unwrap().write_all(json!([schema, documents]).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn everything_that_is_told_and_asked_fits_the_schema() {
    let told: Vec<Value> = events().iter().map(|event| encode(event).1).collect();
    let names: std::collections::BTreeSet<&str> = told.iter().filter_map(|value| value["type"].as_str()).collect();
    assert_eq!(names.len(), 16, "one of each: {names:?}");
    let bodies: Vec<Vec<u8>> = told.iter().map(|value| value.to_string().into_bytes()).collect();
    let batch: Value = serde_json::from_slice(&webhook::batch(bodies.iter().map(Vec::as_slice))).unwrap();
    assert_eq!(batch["events"].as_array().unwrap().len(), told.len());

    let running = Question {
        why: Why::Recheck,
        counters: Some(Counters::default()),
        facts: Arc::new(identified()),
        ..question()
    };
    let asked = [question(), running]
        .map(|question| serde_json::from_slice(&webhook::question(&question, "id", "edge-1")).unwrap());
    let mut documents: Vec<(&str, Value, bool)> = told.iter().map(|value| ("event", value.clone(), true)).collect();
    documents.extend(asked.map(|value: Value| ("ask", value, true)));
    documents.push(("batch", batch, true));
    // And the schema is not one that everything fits.
    for (member, value) in [
        ("seq", json!(0)),
        ("token", json!("x")),
        ("type", json!("session.moved")),
        ("v", json!(2)),
        ("counters", json!({})),
    ] {
        let mut bad = told[9].clone();
        bad[member] = value;
        documents.push(("event", bad, false));
    }
    validate(&documents);
}

#[test]
fn the_examples_of_the_guide_fit_the_schema() {
    let examples: Vec<Value> = GUIDE
        .split("```json\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).expect("an example is no JSON"))
        .collect();
    let [ask, answer, event, batch] = examples.as_slice() else { panic!("there are other examples than these four") };
    // The batch shows how it nests, not whole events.
    assert_eq!(batch["events"].as_array().unwrap().len(), 2);
    validate(&[
        ("ask", ask.clone(), true),
        ("answer", answer.clone(), true),
        ("event", event.clone(), true),
        ("answer", json!({ "text": "no" }), false),
        ("answer", json!({ "allow": true, "user": null, "at_limit": null, "anything": [] }), true),
        ("answer", json!({ "allow": null }), false),
        ("answer", json!({ "allow": true, "recheck_every_ms": 10 }), false),
    ]);
}

#[test]
fn what_is_told_holds_no_token() {
    for event in events() {
        let (_, value) = encode(&event);
        let text = value.to_string();
        assert!(!text.contains("sesame") && !text.contains("query"), "{text}");
    }
    let (_, opened) = encode(&events()[0]);
    assert_eq!(opened["session"]["tc_url"], "rtmp://edge.example/live");
    assert_eq!(opened["session"]["referrer"], "https://site.example/page");
}

#[test]
fn an_event_says_when_and_why() {
    let events = events();
    let closed = |event| {
        let (id, value) = encode(event);
        (
            id,
            value["reason"].clone(),
            value.get("detail").cloned(),
            value["side"].clone(),
            value.get("recovered").cloned(),
        )
    };
    let id = |seq| format!("{}-{seq}", session(1));
    let denied = (id(10), json!("auth_denied"), Some(json!("hook")), json!("policy"), None);
    assert_eq!(closed(&events[9]), denied);
    assert_eq!(closed(&events[10]), (id(11), json!("server_crash"), None, json!("server"), Some(json!(true))));
    let (id, ready) = encode(&events[events.len() - 2]);
    assert_eq!(
        (id.as_str(), &ready["time_unix_ms"], &ready["node"]),
        ("start-77", &json!(1_795_155_521_500_u64), &json!("edge-1"))
    );
    let (_, named) = encode(&events[11]);
    assert_eq!(
        (&named["session"]["user"], &named["session"]["labels"]),
        (&json!("anna"), &json!({ "plan": "gold", "a": "\"" }))
    );
}
