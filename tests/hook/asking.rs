//! Asking a back end over a real socket, and everything that it can do wrong.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sluicegate::admission::{Answer, Failure};
use sluicegate::hook::{Asks, BreakerState, Question, Settings, Why};
use sluicegate::names::{Kind, Name, StreamKey};
use sluicegate::session::{Counters, Facts};
use sluicegate::stdx::units::Secret;

use crate::support::{BackEnd, PATIENCE, Request, asking, facts, question, response, until};

const YES: &str = "{\"allow\":true,\"user\":\"anna\"}";

async fn ask_once(settings: &Settings) -> Answer {
    Asks::new(settings, "edge-1").unwrap().ask(0, &question()).await
}

/// What comes of asking a back end that writes these bytes and then closes the connection.
async fn closing_after(bytes: impl Into<Vec<u8>>) -> Answer {
    let bytes = bytes.into();
    let back_end = BackEnd::start(move |_, stream| {
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Both);
        false
    });
    ask_once(&asking(&back_end.url())).await
}

#[tokio::test]
async fn a_question_has_documented_members_and_a_signature() {
    let back_end = BackEnd::saying(response("200 OK", YES));
    let asks = Asks::new(&asking(&back_end.url()), "edge-1").unwrap();
    let Answer::Allow(terms) = asks.ask(0, &question()).await else { panic!("it said yes") };
    assert_eq!(terms.user.as_deref(), Some("anna"));
    let counters = Counters { rx_bytes: 7, ..Counters::default() };
    asks.ask(0, &Question { why: Why::Recheck, counters: Some(counters), ..question() }).await;

    let requests = back_end.requests();
    let (first, second) = (requests[0].json(), requests[1].json());
    assert_eq!(requests[0].head.lines().next(), Some("POST /hook HTTP/1.1"));
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    assert_eq!(requests[0].header("sluicegate-event-id"), first["event_id"].as_str());
    assert!(
        requests[0].header("sluicegate-signature").is_some_and(|value| value.starts_with("v1=") && value.len() == 67)
    );
    assert_eq!(
        (&first["v"], &first["type"], &first["why"], &first["node"]),
        (&1.into(), &"ask".into(), &"open".into(), &"edge-1".into())
    );
    assert_eq!(first["session"]["query"], "token=open-sesame", "a back end that decides is shown the token");
    assert_eq!(first.get("counters"), None);
    assert_eq!((&second["why"], &second["counters"]["rx_bytes"]), (&"recheck".into(), &7.into()));
    assert_ne!(first["event_id"], second["event_id"]);
    assert_eq!(*back_end.connections.lock().unwrap(), 1, "the connection is used again");
    let status = &asks.status()[0];
    assert_eq!((&*status.name, status.queue, status.seconds.count()), ("auth", 0, 2));
    assert_eq!((status.requests.as_slice(), status.breaker), (&[("allow", 2)][..], BreakerState::Closed));
}

#[tokio::test]
async fn secrets_change_while_questions_are_asked() {
    let back_end = BackEnd::saying(response("200 OK", YES));
    let settings = asking(&back_end.url());
    let asks = Asks::new(&settings, "edge-1").unwrap();
    let mut rotated = settings.clone();
    rotated.ask[0].secrets.insert(0, Secret::new("bmV3IHNlc2FtZSBwbGVhc2Uh".into()));
    asks.ask(0, &question()).await;
    asks.sign_with(&rotated);
    asks.ask(0, &question()).await;
    rotated.ask[0].name = "another".into();
    rotated.ask[0].secrets.clear();
    asks.sign_with(&rotated);
    asks.ask(0, &question()).await;
    let keys = |request: &Request| request.header("sluicegate-key-id").unwrap().split(", ").count();
    assert_eq!(back_end.requests().iter().map(keys).collect::<Vec<_>>(), [1, 2, 2]);
    assert_eq!(*back_end.connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn hk_01_a_back_end_that_cannot_be_reached_is_a_failure() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    // What a plain server says to a handshake that it cannot read.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_address = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = stream.read(&mut [0; 16]);
            let _ = stream.write_all(&response("400 Bad Request", ""));
        }
    });
    for url in [
        format!("http://{address}/"),
        "http://no-such-name.invalid/".to_owned(),
        // TLS where there is none.
        format!("https://{plain_address}/"),
    ] {
        // Time is not what is asked about, and a busy machine takes some for its first handshake.
        let mut settings = asking(&url);
        (settings.connect_timeout, settings.decide_timeout) = (Duration::from_secs(30), Duration::from_secs(30));
        assert_eq!(ask_once(&settings).await, Answer::Failure(Failure::Connect), "{url}");
    }
}

#[tokio::test]
async fn hk_01_a_connection_that_is_reset_is_a_failure() {
    let back_end = BackEnd::start(|_, stream| {
        // Closing with unread bytes or no lingering resets.
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let length = libc::socklen_t::try_from(size_of_val(&linger)).unwrap();
        // SAFETY: the descriptor is open, and the option's value is a `linger` of the given size.
        let done = unsafe {
            use std::os::fd::AsRawFd as _;
            libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length)
        };
        assert_eq!(done, 0);
        false
    });
    assert_eq!(ask_once(&asking(&back_end.url())).await, Answer::Failure(Failure::Connect));
}

#[tokio::test]
async fn hk_02_a_back_end_that_takes_too_long_is_a_failure_at_the_deadline() {
    // Without a byte; a header and a body that never end.
    for slow in ["", "HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"] {
        let back_end = BackEnd::start(move |_, stream| {
            let mut going = stream.write_all(slow.as_bytes()).is_ok();
            while going {
                std::thread::sleep(Duration::from_millis(100));
                going = slow.is_empty() || stream.write_all(b" ").is_ok();
                going &= stream.take_error().is_ok_and(|error| error.is_none());
                if slow.is_empty() {
                    std::thread::sleep(Duration::from_secs(4));
                    going = false;
                }
            }
            false
        });
        assert_eq!(ask_once(&asking(&back_end.url())).await, Answer::Failure(Failure::Timeout), "{slow:?}");
    }
}

#[tokio::test]
async fn hk_03_a_redirect_is_a_failure_and_is_not_followed() {
    let elsewhere = BackEnd::saying(response("200 OK", YES));
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let head = format!("HTTP/1.1 {status}\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url());
        let back_end = BackEnd::saying(head);
        let code = status[..3].parse().unwrap();
        assert_eq!(ask_once(&asking(&back_end.url())).await, Answer::Failure(Failure::Status(code)));
    }
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn hk_03_eight_interim_responses_are_passed_over_and_a_ninth_is_a_failure() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n";
    let yes = String::from_utf8(response("200 OK", YES)).unwrap();
    let back_end = BackEnd::saying(format!("{}{yes}", interim.repeat(8)));
    let asks = Asks::new(&asking(&back_end.url()), "edge-1").unwrap();
    // They are counted for each question.
    for _ in 0..3 {
        assert!(matches!(asks.ask(0, &question()).await, Answer::Allow(_)));
    }
    assert_eq!(*back_end.connections.lock().unwrap(), 1);
    // Whether they come together with the response, or one by one and without any.
    let back_end = BackEnd::saying(format!("{}{yes}", interim.repeat(9)));
    assert_eq!(ask_once(&asking(&back_end.url())).await, Answer::Failure(Failure::Malformed("interim")));
    let (sent, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, end) = (Arc::clone(&sent), Arc::clone(&closed));
    let back_end = BackEnd::start(move |_, stream| {
        while stream.write_all(interim.as_bytes()).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
        }
        end.store(true, Ordering::SeqCst);
        false
    });
    // Time is not what ends it.
    let patient = Settings { decide_timeout: PATIENCE * 10, ..asking(&back_end.url()) };
    assert_eq!(ask_once(&patient).await, Answer::Failure(Failure::Malformed("interim")));
    until("the connection is closed", || closed.load(Ordering::SeqCst)).await;
    assert!(sent.load(Ordering::SeqCst) >= 9);
    // One that leaves HTTP is a status like any other.
    let switched = closing_after("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    assert_eq!(switched, Answer::Failure(Failure::Status(101)));
}

#[tokio::test]
async fn hk_03_a_back_end_that_asks_for_time_is_left_alone() {
    let back_end = BackEnd::saying("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n");
    let asks = Asks::new(&asking(&back_end.url()), "edge-1").unwrap();
    assert_eq!(asks.ask(0, &question()).await, Answer::Failure(Failure::Status(429)));
    for _ in 0..20 {
        assert_eq!(asks.ask(0, &question()).await, Answer::Failure(Failure::BreakerOpen));
    }
    assert_eq!(back_end.requests().len(), 1);
}

#[tokio::test]
async fn hk_05_a_response_over_its_limits_is_a_failure() {
    let large = "x".repeat(70_000);
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let headers: String = (0..40).map(|i| format!("X-{i}: {}\r\n", "y".repeat(500))).collect();
    let many: String = (0..80).map(|i| format!("X-{i}: y\r\n")).collect();
    let body = format!("Content-Length: {}\r\n\r\n{YES}", YES.len());
    for (bytes, rule) in [
        (response("200 OK", &large), "body"),
        (chunked.into_bytes(), "body"),
        (format!("HTTP/1.1 200 OK\r\n{headers}{body}").into_bytes(), "headers"),
        (format!("HTTP/1.1 200 OK\r\n{many}{body}").into_bytes(), "headers"),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\n{body}", "y".repeat(1 << 20)).into_bytes(), "headers"),
        (format!("HTTP/1.1 200 {}\r\n{body}", "y".repeat(1 << 20)).into_bytes(), "headers"),
    ] {
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(60).collect();
        assert_eq!(closing_after(bytes).await, Answer::Failure(Failure::Malformed(rule)), "{shown}");
    }
}

#[tokio::test]
async fn hk_05_headers_up_to_their_limit_are_taken_and_not_one_byte_or_header_more() {
    let allowed = |answer: &Answer| matches!(answer, Answer::Allow(_));
    let length = format!("Content-Length: {}\r\n", YES.len());
    for limit in [1_usize << 10, 16 << 10, 256 << 10] {
        for (beyond, fits) in [(0, true), (1, false)] {
            // Two lines, each counted with its end.
            let fill = "y".repeat(limit + beyond - length.len() - "X: \r\n".len());
            let back_end = BackEnd::saying(format!("HTTP/1.1 200 OK\r\n{length}X: {fill}\r\n\r\n{YES}"));
            let settings = Settings { response_headers: limit as u64, ..asking(&back_end.url()) };
            let answer = ask_once(&settings).await;
            assert_eq!(allowed(&answer), fits, "{limit} and {beyond}: {answer:?}");
            assert!(fits || answer == Answer::Failure(Failure::Malformed("headers")), "{limit}: {answer:?}");
        }
    }
    for (count, fits) in [(64, true), (65, false)] {
        let many: String = (1..count).map(|i| format!("X-{i}: y\r\n")).collect();
        let answer = closing_after(format!("HTTP/1.1 200 OK\r\n{many}{length}\r\n{YES}")).await;
        assert_eq!(allowed(&answer), fits, "{count}: {answer:?}");
        assert!(fits || answer == Answer::Failure(Failure::Malformed("headers")), "{count}: {answer:?}");
    }
}

#[tokio::test]
async fn hk_05_a_response_whose_length_is_not_what_it_says_is_a_failure() {
    for (bytes, rule) in [
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{YES}"), "truncated"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX".to_owned(), "truncated"),
        (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{YES}", YES.len()), "truncated"),
        (
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {0}\r\nTransfer-Encoding: chunked\r\n\r\n{0:x}\r\n{YES}\r\n0\r\n\r\n",
                YES.len()
            ),
            "length",
        ),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: {}\r\n\r\n{YES}", YES.len()), "http"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{YES}"), "http"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(), "http"),
        ("\0\u{1}\u{2}\u{3}".repeat(10), "http"),
    ] {
        let shown: String = bytes.chars().take(70).collect();
        assert_eq!(closing_after(bytes).await, Answer::Failure(Failure::Malformed(rule)), "{shown}");
    }
}

#[tokio::test]
async fn hk_11_an_answer_after_the_deadline_is_not_read_and_its_connection_not_used_again() {
    let first = AtomicBool::new(true);
    let back_end = BackEnd::start(move |_, stream| {
        if first.swap(false, Ordering::SeqCst) {
            std::thread::sleep(Duration::from_secs(3));
            // A late yes must not answer the next question.
            return stream.write_all(&response("200 OK", YES)).is_ok();
        }
        stream.write_all(&response("403 Forbidden", "")).is_ok()
    });
    let asks = Asks::new(&asking(&back_end.url()), "edge-1").unwrap();
    assert_eq!(asks.ask(0, &question()).await, Answer::Failure(Failure::Timeout));
    for _ in 0..3 {
        assert!(matches!(asks.ask(0, &question()).await, Answer::Deny { .. }));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(*back_end.connections.lock().unwrap(), 2);
}

#[tokio::test]
async fn hk_12_a_compressed_response_is_not_asked_for_and_not_taken() {
    let back_end = BackEnd::saying(format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{YES}",
        YES.len()
    ));
    assert_eq!(ask_once(&asking(&back_end.url())).await, Answer::Failure(Failure::Malformed("compressed")));
    assert_eq!(back_end.requests()[0].header("accept-encoding"), None);
}

#[tokio::test]
async fn hk_13_nothing_of_a_response_is_remembered_and_no_proxy_is_asked() {
    let proxy = BackEnd::saying(response("200 OK", YES));
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        // SAFETY: tests run in a process each, and no other thread reads the environment now.
        unsafe { std::env::set_var(name, proxy.url()) };
    }
    let back_end = BackEnd::saying(format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nStrict-Transport-Security: max-age=99999\r\n\
         Alt-Svc: h2=\"{}\"\r\nContent-Length: {}\r\n\r\n{YES}",
        proxy.address,
        YES.len()
    ));
    let asks = Asks::new(&asking(&back_end.url()), "edge-1").unwrap();
    for _ in 0..3 {
        assert!(matches!(asks.ask(0, &question()).await, Answer::Allow(_)));
    }
    let requests = back_end.requests();
    assert_eq!((requests.len(), proxy.requests().len()), (3, 0));
    assert!(requests.iter().all(|request| request.header("cookie").is_none()));
}

#[tokio::test]
async fn hk_14_an_address_in_the_url_may_be_any_and_localhost_too() {
    let back_end = BackEnd::saying(response("200 OK", YES));
    let port = back_end.address.port();
    for host in ["127.0.0.1", "localhost"] {
        let answer = ask_once(&asking(&format!("http://{host}:{port}/"))).await;
        assert!(matches!(answer, Answer::Allow(_)), "{host}: {answer:?}");
    }
}

#[tokio::test]
async fn hk_15_what_peers_say_is_in_the_body_only_escaped_and_cut() {
    let back_end = BackEnd::saying(response("200 OK", YES));
    let asks = Asks::new(&asking(&back_end.url()), "edge-1").unwrap();
    let hostile = "\"},{\"allow\":true\r\nX-Evil: 1\r\n\r\nGET /evil HTTP/1.1\u{0}\u{202e}\\\u{1f600}</script>";
    let long = format!("{hostile}{}", "ä".repeat(5_000));
    let text = |text: &str| Some(Box::from(text));
    let facts = Facts {
        kind: Kind::Play,
        key: StreamKey::new(
            &Name::app("default").unwrap(),
            &Name::app("live/../evil".replace("..", "x").as_str()).unwrap(),
            &Name::stream("cam&a=b").unwrap(),
        ),
        query: text(&long),
        user_agent: text(&long),
        referrer: text(hostile),
        tc_url: text(&long),
        swf_url: text(&long),
        ..facts()
    };
    asks.ask(0, &Question { facts: Arc::new(facts), ..question() }).await;
    let request = &back_end.requests()[0];
    let session = &request.json()["session"];
    assert_eq!(session["referrer"], hostile);
    for (field, most) in [("query", 4_096), ("user_agent", 1_024), ("tc_url", 1_024), ("swf_url", 1_024)] {
        let told = session[field].as_str().unwrap();
        assert!(told.len() <= most && told.len() > most - 4 && long.starts_with(told), "{field}: {}", told.len());
    }
    assert_eq!(request.head.lines().next(), Some("POST /hook HTTP/1.1"));
    assert!(!request.head.contains("vil") && !request.head.contains("cam"), "{}", request.head);
    assert!(!request.body.iter().any(|byte| *byte < b' '), "a control character is not escaped");
    assert_eq!(back_end.requests().len(), 1);
}

#[tokio::test]
async fn fa_10_a_back_end_that_fails_is_left_alone_until_it_is_back() {
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let back_end = BackEnd::start(move |_, stream| {
        let bytes =
            if state.load(Ordering::SeqCst) { response("503 Unavailable", "") } else { response("200 OK", YES) };
        stream.write_all(&bytes).is_ok()
    });
    let asks = Asks::new(&asking(&back_end.url()), "edge-1").unwrap();
    let mut answers = Vec::new();
    for _ in 0..200 {
        answers.push(asks.ask(0, &question()).await);
    }
    let spoken = answers.iter().filter(|answer| **answer == Answer::Failure(Failure::Status(503))).count();
    assert_eq!(back_end.requests().len(), spoken);
    assert!(spoken <= 8, "{spoken} of 200 questions went to a back end that is down");
    assert!(answers.iter().filter(|answer| **answer == Answer::Failure(Failure::BreakerOpen)).count() >= 190);
    broken.store(false, Ordering::SeqCst);
    assert_ne!(asks.status()[0].breaker, BreakerState::Closed);
    let again = async {
        while !matches!(asks.ask(0, &question()).await, Answer::Allow(_)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("it is never asked again");
    assert_eq!(asks.status()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_queue_that_is_full_and_a_wait_that_is_too_long_are_failures() {
    let back_end = BackEnd::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(1_200));
        stream.write_all(&response("200 OK", YES)).is_ok()
    });
    let settings = Settings { concurrency: 1, queue: 3, ..asking(&back_end.url()) };
    let asks = Asks::new(&settings, "edge-1").unwrap();
    let ask = || {
        let asks = asks.clone();
        tokio::spawn(async move { asks.ask(0, &question()).await })
    };
    let questions: Vec<_> = (0..5).map(|_| ask()).collect();
    let mut answers = Vec::new();
    for question in questions {
        answers.push(question.await.unwrap());
    }
    // One is answered; one is put too late for its answer; one never has its turn; two find no room.
    assert!(matches!(answers[0], Answer::Allow(_)));
    assert_eq!(answers[1..3], [Answer::Failure(Failure::Timeout), Answer::Failure(Failure::Timeout)]);
    assert_eq!(answers[3..], [Answer::Failure(Failure::QueueFull), Answer::Failure(Failure::QueueFull)]);
    assert_eq!(asks.status()[0].queue, 0);
    assert_eq!(asks.ask(9, &question()).await, Answer::Failure(Failure::Connect), "there is no tenth back end");
}
