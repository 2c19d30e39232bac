//! Asking the API for much, slowly, or for ever, while media flows.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use sluicegate::proto::rtmp::amf0::Value;

use crate::support::calm::Calm;
use crate::support::hand::Hand;
use crate::support::{PATIENCE, Server, eventually};

/// A connection to the API that has room for next to nothing of an answer.
fn narrow(server: &Server, request: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&server.api.into()).unwrap();
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    socket
}

fn get(server: &Server, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.api)
}

/// Every session, a page at a time.
fn all_pages(server: &Server, filter: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = String::new();
    loop {
        let (status, page) = server.get(&format!("/v1/sessions?limit=50&{filter}{after}"));
        assert_eq!(status, 200, "{page}");
        ids.extend(page["sessions"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        match page["cursor"].as_str() {
            Some(cursor) => after = format!("&cursor={cursor}"),
            None => return ids,
        }
    }
}

#[test]
fn ap_07_lists_are_whole_while_media_flows_and_no_shard_is_asked() {
    const PLAYERS: usize = 300;
    const CLIENTS: usize = 12;
    const LISTS: usize = 4;
    let server = Server::start("[shard]\ncount = 1\nreport_every = \"50ms\"");
    let mut calm = Calm::start(&server, "calm");
    let players: Vec<Hand> = (0..PLAYERS).map(|_| Hand::playing(server.rtmp, "live", "nobody")).collect();
    let known: BTreeSet<String> = server
        .wait_for_sessions("kind=play&stream=nobody", PLAYERS)
        .iter()
        .map(|it| it["id"].as_str().unwrap().to_owned())
        .collect();
    server.settle();
    let woken = server.shards("wakeups");
    let lists = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut lists = 0;
                    for _ in 0..LISTS {
                        let ids = all_pages(&server, "stream=nobody");
                        assert_eq!(ids.len(), PLAYERS, "sessions are missing or doubled");
                        assert!(ids.iter().all(|id| known.contains(id)));
                        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "not the oldest first");
                        lists += 1;
                    }
                    lists
                })
            })
            .collect();
        while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            calm.beat();
        }
        clients.into_iter().map(|client| client.join().expect("a client's lists are right")).sum::<usize>()
    });
    assert_eq!(lists, LISTS * CLIENTS);
    calm.assert_undisturbed(&server);
    // With one shard there is no relay, so only orders wake it: hundreds of pages were answered without one.
    server.settle();
    assert_eq!(server.shards("wakeups"), woken);
    // An order does.
    let id = known.first().unwrap();
    assert_eq!(server.call("DELETE", &format!("/v1/sessions/{id}"), None).0, 200);
    eventually("the shard was woken", || server.shards("wakeups") > woken);
    drop(players);
}

#[test]
fn ap_08_a_client_that_hardly_reads_is_let_go_and_holds_one_answer_meanwhile() {
    const CLIENTS: usize = 8;
    let server = Server::start("[shard]\nreport_every = \"50ms\"");
    let mut calm = Calm::start(&server, "calm");
    let size = server.call_text("GET", "/openapi.json", None).1.len();
    let before = server.resident_bytes();
    // Four hundred answers each, of which the sockets take some megabytes.
    let mut clients: Vec<TcpStream> =
        (0..CLIENTS).map(|_| narrow(&server, &get(&server, "/openapi.json").repeat(400))).collect();
    let began = Instant::now();
    let mut open: Vec<bool> = vec![true; CLIENTS];
    let mut peak = 0;
    while open.iter().any(|it| *it) {
        assert!(began.elapsed() < PATIENCE + PATIENCE, "{open:?} after {:?}", began.elapsed());
        for (client, open) in clients.iter_mut().zip(&mut open).filter(|(_, open)| **open) {
            // A byte now and then; what came before a reset may still be there to be read.
            client.set_nonblocking(true).unwrap();
            let ended = match client.read(&mut [0; 1]) {
                Ok(0) => true,
                Ok(_) => client.take_error().unwrap().is_some(),
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            *open = !ended && !is_reset(client);
        }
        calm.beat();
        peak = peak.max(server.resident_bytes());
        std::thread::sleep(Duration::from_millis(100));
    }
    // Eight sockets full are the kernel's. What the process held for each is the answer under way.
    let held = peak.saturating_sub(before);
    assert!(held < (CLIENTS * size * 8 + (8 << 20)) as u64, "{held} bytes, answers have {size}");
    assert_eq!(server.get("/v1/summary").0, 200);
    calm.assert_undisturbed(&server);
}

/// The kernel knows that the server has closed, whatever is still to be read.
fn is_reset(socket: &TcpStream) -> bool {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: `poll` is one valid pollfd for the length of the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

#[test]
fn ap_15_an_event_stream_that_is_not_read_gets_a_gap_and_the_end() {
    let server = Server::start("[control]\nevents_kept = 256\n[rtmp]\ncommand_rate = 10000");
    let mut calm = Calm::start(&server, "calm");
    let mut idle = narrow(&server, &get(&server, "/v1/events"));
    // Each of these plays is three events of a kilobyte, more than ring and sockets hold.
    let long = "x".repeat(400);
    let mut hand = Hand::connected(server.rtmp, "live");
    let count = || server.metrics().sum("sluicegate_events_total", "");
    let before = count();
    for play in 0..3_000 {
        hand.replies.clear();
        hand.play(&long);
        hand.expect_code("NetStream.Play.Start");
        hand.command(1, "closeStream", 0.0, &[Value::Null]);
        hand.expect_code("NetStream.Play.Stop");
        if play % 50 == 0 {
            calm.beat();
        }
    }
    eventually("nine thousand events", || count() >= before + 9_000);

    let mut text = String::new();
    let mut bytes = [0; 64 << 10];
    loop {
        match idle.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
            Err(error) => panic!("the stream does not end: {error}, after {} bytes", text.len()),
        }
        if text.ends_with("0\r\n\r\n") {
            break;
        }
    }
    let gap = text.rfind("event: gap").expect("a gap");
    let missed: u64 = text[gap..]
        .split_once("\"missed\":")
        .and_then(|(_, rest)| rest.split('}').next()?.parse().ok())
        .expect("how many were missed");
    assert!((1..count()).contains(&missed), "{missed} missed");
    assert_eq!(text.matches("event: gap").count(), 1, "after a gap the stream ends");
    assert!(!text[gap..].contains("event: session"), "after a gap the stream ends");
    calm.assert_undisturbed(&server);
}
