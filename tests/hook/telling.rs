//! Telling a receiver over a real socket.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluicegate::event::Weight;
use sluicegate::hook::{BreakerState, Endpoint, Parcel, Settings, Spool, tell};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::{BackEnd, Memory, SECRET, parcel, response, session, until};

fn settings(url: &str, more: &str) -> Settings {
    let text = format!(
        "connect_timeout = \"2s\"\nevent_timeout = \"5s\"\n\
         [[tell]]\nname = \"billing\"\nurl = \"{url}\"\nsecrets = [\"{SECRET}\"]\n{more}"
    );
    toml::from_str(&text).unwrap()
}

/// A driver, with what wakes it.
struct Driver {
    endpoint: Endpoint,
    task: JoinHandle<()>,
    wake: watch::Sender<u64>,
}

fn drive(back_end: &BackEnd, spool: &Memory, more: &str) -> Driver {
    let settings = settings(&back_end.url(), more);
    let endpoint = Endpoint::new(&settings, &settings.tell[0]).unwrap();
    let (wake, woken) = watch::channel(0);
    let task = tokio::spawn(tell(endpoint.clone(), spool.clone(), woken));
    Driver { endpoint, task, wake }
}

/// The ids that a back end was told, in the order of their coming.
fn told(back_end: &BackEnd) -> Vec<i64> {
    let ids = |value: serde_json::Value| value["id"].as_i64().unwrap();
    back_end
        .requests()
        .iter()
        .flat_map(|request| match request.json() {
            serde_json::Value::Object(mut batch) if batch.contains_key("events") => {
                let serde_json::Value::Array(events) = batch.remove("events").unwrap() else { panic!("no list") };
                events.into_iter().map(ids).collect::<Vec<_>>()
            }
            one => vec![ids(one)],
        })
        .collect()
}

#[tokio::test]
async fn hk_05_an_event_that_was_taken_is_not_told_again_however_much_the_receiver_says_with_it() {
    let more = format!("X: {}\r\n", "y".repeat(30_000));
    let back_end =
        BackEnd::saying(format!("HTTP/1.1 200 OK\r\n{more}Content-Length: 100000\r\n\r\n{}", "z".repeat(100_000)));
    let spool = Memory::default();
    spool.put(parcel(1, None, Weight::Must));
    let driver = drive(&back_end, &spool, "");
    until("the spool is empty", || spool.len() == 0).await;
    until("it is noted", || driver.endpoint.status().told.taken == 1).await;
    assert_eq!(told(&back_end), [1]);
}

#[tokio::test]
async fn what_the_spool_has_is_told_and_leaves_it() {
    let back_end = BackEnd::saying(response("204 No Content", ""));
    let spool = Memory::default();
    for id in 1..=100 {
        spool.put(parcel(id, Some(session((id % 5) as u64)), Weight::Must));
    }
    let driver = drive(&back_end, &spool, "");
    until("the spool is empty", || spool.len() == 0).await;
    // What comes later is told when somebody says so.
    spool.put(parcel(101, None, Weight::Other));
    driver.wake.send(101).unwrap();
    until("the spool is empty again", || spool.len() == 0).await;

    let mut last = HashMap::new();
    let ids = told(&back_end);
    for id in &ids[..100] {
        let before = last.insert(id % 5, *id);
        assert!(before.is_none_or(|before| before < *id), "{id} came after {before:?}");
    }
    assert_eq!(ids.len(), 101);
    let request = &back_end.requests()[0];
    assert_eq!(request.header("sluicegate-event-id").unwrap(), format!("event-{}", request.json()["id"]));
    until("it is noted", || driver.endpoint.status().told.taken == 101).await;
    let status = driver.endpoint.status();
    assert_eq!((status.requests.as_slice(), status.queue), (&[("taken", 101)][..], 0));
    driver.task.abort();
}

#[tokio::test]
async fn a_batch_is_a_list_of_whole_events() {
    let back_end = BackEnd::saying(response("200 OK", "thanks"));
    let spool = Memory::default();
    for id in 1..=10 {
        spool.put(parcel(id, Some(session(1)), Weight::Must));
    }
    let driver = drive(&back_end, &spool, "batch_max = 4\n");
    until("the spool is empty", || spool.len() == 0).await;
    assert_eq!(told(&back_end), (1..=10).collect::<Vec<_>>());
    let requests = back_end.requests();
    let names: Vec<&str> = requests.iter().filter_map(|request| request.header("sluicegate-event-id")).collect();
    assert_eq!(names, ["batch-event-1-4", "batch-event-5-4", "batch-event-9-2"]);
    assert_eq!(requests[0].json()["v"], 1);
    driver.task.abort();
}

#[tokio::test]
async fn hk_10_a_receiver_that_answers_out_of_order_hears_each_session_in_order() {
    // Every third request fails, and answers come as late as they like.
    let count = AtomicUsize::new(0);
    let back_end = BackEnd::start(move |_, stream| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis((number * 7 % 20) as u64));
        let status = if number % 3 == 2 { "500 Oops" } else { "200 OK" };
        stream.write_all(&response(status, "")).is_ok()
    });
    let spool = Memory::default();
    for id in 1..=120 {
        spool.put(parcel(id, Some(session((id % 30) as u64)), Weight::Must));
    }
    let driver = drive(&back_end, &spool, "");
    until("the spool is empty", || spool.len() == 0).await;
    let mut last: HashMap<i64, i64> = HashMap::new();
    for id in told(&back_end) {
        let last = last.entry(id % 30).or_insert(id);
        // The same again after a failure, or the next one; never one before.
        assert!(id == *last || id == *last + 30, "{id} after {last}");
        *last = id;
    }
    assert!(last.values().all(|last| *last > 90), "{last:?}");
    assert!(driver.endpoint.status().told.retried > 0);
    driver.task.abort();
}

#[tokio::test]
async fn a_receiver_that_has_said_yes_need_not_be_heard_to_the_end() {
    // The body never ends, is larger than anybody reads, or is shorter than it says.
    for body in ["Content-Length: 1000000\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n5\r\nx"] {
        let head = format!("HTTP/1.1 200 OK\r\n{body}");
        let back_end = BackEnd::start(move |_, stream| {
            let _ = stream.write_all(head.as_bytes());
            std::thread::sleep(Duration::from_secs(3));
            false
        });
        let spool = Memory::default();
        spool.put(parcel(1, None, Weight::Must));
        let driver = drive(&back_end, &spool, "");
        until("the spool is empty", || spool.len() == 0).await;
        assert_eq!(told(&back_end), [1], "{body}: it was told again");
        driver.task.abort();
    }
}

#[tokio::test]
async fn a_refused_event_does_not_hold_up_others_and_a_wrong_address_holds_up_all() {
    let back_end = BackEnd::start(|request, stream| {
        let status = if request.json()["id"] == 1 { "422 Unprocessable" } else { "200 OK" };
        stream.write_all(&response(status, "")).is_ok()
    });
    let spool = Memory::default();
    for id in 1..=5 {
        spool.put(parcel(id, Some(session(id as u64)), Weight::Must));
    }
    let driver = drive(&back_end, &spool, "");
    until("the others are told", || spool.len() == 1).await;
    until("it is tried again", || told(&back_end).iter().filter(|id| **id == 1).count() >= 3).await;
    assert_eq!(driver.endpoint.status().breaker, BreakerState::Closed, "a receiver that refuses is there");
    driver.task.abort();

    for status in ["401 Unauthorized", "404 Not Found", "410 Gone", "301 Moved", "500 Oops"] {
        let back_end = BackEnd::saying(response(status, ""));
        let spool = Memory::default();
        for id in 1..=20 {
            spool.put(parcel(id, Some(session(id as u64)), Weight::Must));
        }
        let driver = drive(&back_end, &spool, "");
        until("it is left alone", || driver.endpoint.status().breaker == BreakerState::Open).await;
        assert_eq!(spool.len(), 20, "{status} is no reason to forget anything");
        driver.task.abort();
    }
}

#[tokio::test]
async fn what_was_under_way_when_the_server_ended_is_told_again() {
    let back_end = BackEnd::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(&response("200 OK", "")).is_ok()
    });
    let spool = Memory::default();
    for id in 1..=3 {
        spool.put(parcel(id, Some(session(1)), Weight::Must));
    }
    let driver = drive(&back_end, &spool, "");
    until("a request is under way", || !back_end.requests().is_empty()).await;
    driver.task.abort();
    let driver = drive(&back_end, &spool, "");
    until("the spool is empty", || spool.len() == 0).await;
    assert_eq!(told(&back_end), [1, 1, 2, 3]);
    driver.task.abort();
}

/// A spool whose rows are large: a page has one, however many were asked for.
struct Large(Memory);

impl Spool for Large {
    async fn page(&self, after: i64, _: usize) -> Option<Vec<Parcel>> {
        Some(self.0.page_now(after, 1))
    }

    fn done(&self, ids: Vec<i64>) {
        self.0.done(ids);
    }
}

/// A spool that cannot be read at first.
struct Away(Memory, Arc<AtomicUsize>);

impl Spool for Away {
    async fn page(&self, after: i64, limit: usize) -> Option<Vec<Parcel>> {
        let is_away = self.1.fetch_add(1, Ordering::Relaxed) < 3;
        if is_away { None } else { Some(self.0.page_now(after, limit)) }
    }

    fn done(&self, ids: Vec<i64>) {
        self.0.done(ids);
    }
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_cannot_be_read_is_asked_again_soon() {
    let spool = Memory::default();
    let settings = settings("http://127.0.0.1:9/", "");
    let endpoint = Endpoint::new(&settings, &settings.tell[0]).unwrap();
    let (_wake, woken) = watch::channel(0);
    let began = tokio::time::Instant::now();
    let asked = Arc::new(AtomicUsize::new(0));
    let task = tokio::spawn(tell(endpoint, Away(spool, Arc::clone(&asked)), woken));
    while asked.load(Ordering::Relaxed) < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // On virtual time; what is still is looked at every five seconds.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    task.abort();
}

#[tokio::test]
async fn a_short_page_is_not_the_last() {
    let back_end = BackEnd::saying(response("200 OK", ""));
    let spool = Memory::default();
    for id in 1..=50 {
        spool.put(parcel(id, None, Weight::Must));
    }
    let settings = settings(&back_end.url(), "");
    let endpoint = Endpoint::new(&settings, &settings.tell[0]).unwrap();
    let (_wake, woken) = watch::channel(0);
    let task = tokio::spawn(tell(endpoint, Large(spool.clone()), woken));
    // Nobody wakes it, and it need not look fifty times by itself.
    until("the spool is empty", || spool.len() == 0).await;
    assert_eq!(told(&back_end).len(), 50);
    task.abort();
}
