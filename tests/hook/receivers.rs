//! Receivers that others wrote: the one of the guide, and what TLS there is.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate::admission::{Answer, Failure};
use sluicegate::event::Weight;
use sluicegate::hook::{Asks, Endpoint, Parcel, Settings, tell};
use tokio::sync::watch;

use crate::support::{Memory, PATIENCE, SECRET, asking, question, session, until};

/// A program that listens on a port of its own and is ended with its test.
struct Peer {
    child: Child,
    port: u16,
    lines: Receiver<String>,
}

impl Peer {
    fn start(command: impl Fn(u16) -> Command) -> Self {
        // The port is free now; nobody else of this test takes it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = command(port);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("the peer {:?} is needed: {error}", command.get_program()));
        let (told, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| told.send(line).is_ok()));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, lines }
    }

    /// The receiver of the guide, with these secrets.
    fn receiver(secrets: &str) -> Self {
        let script = guide().join("receiver.py");
        Self::start(|port| {
            let mut command = Command::new("python3");
            command.arg(&script).arg(port.to_string()).env("SLUICEGATE_SECRETS", secrets);
            command
        })
    }

    fn events(&self) -> Vec<Value> {
        self.lines.try_iter().map(|line| serde_json::from_str(&line).unwrap()).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide")
}

/// Tells a receiver these events, each twice, and waits until it has taken them; or only until it has been tried.
async fn told(peer: &Peer, secrets: &str, batch_max: usize, is_taken: bool) -> Vec<Value> {
    let text = format!(
        "[[tell]]\nname = \"r\"\nurl = \"http://127.0.0.1:{}/\"\nsecrets = [{secrets}]\nbatch_max = {batch_max}\n",
        peer.port
    );
    let settings: Settings = toml::from_str(&text).unwrap();
    let endpoint = Endpoint::new(&settings, &settings.tell[0]).unwrap();
    let spool = Memory::default();
    for id in 0..20 {
        // The second time is as if the first answer had been lost.
        let event_id = format!("e-{}", id / 2);
        let body = json!({ "event_id": event_id, "text": "ä\u{1f600}\"" }).to_string();
        let parcel = Parcel {
            id: id + 1,
            event_id: event_id.into(),
            session: Some(session((id / 8) as u64)),
            weight: Weight::Must,
            body: body.into(),
        };
        spool.put(parcel);
    }
    let (_wake, woken) = watch::channel(0);
    let task = tokio::spawn(tell(endpoint.clone(), spool.clone(), woken));
    if is_taken {
        until("the receiver takes it", || spool.len() == 0).await;
    } else {
        until("the receiver is tried", || {
            endpoint.status().requests.iter().any(|(word, many)| *word == "status" && *many > 2)
        })
        .await;
        assert_eq!(spool.len(), 20);
    }
    task.abort();
    let mut events = peer.events();
    let deadline = Instant::now() + PATIENCE;
    while is_taken && events.len() < 10 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
        events.extend(peer.events());
    }
    events
}

#[tokio::test]
async fn the_receiver_of_the_guide_takes_what_is_signed_and_each_event_once() {
    for batch_max in [1, 5] {
        let peer = Peer::receiver(SECRET);
        let mut ids: Vec<String> = told(&peer, &format!("\"{SECRET}\""), batch_max, true)
            .await
            .iter()
            .map(|event| event["event_id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        assert_eq!(ids, (0..10).map(|number| format!("e-{number}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_receiver_of_the_guide_refuses_a_signature_of_another_secret_and_none() {
    let peer = Peer::receiver(SECRET);
    for secrets in ["\"c29tZSBvdGhlciBzZWNyZXQu\"", ""] {
        assert_eq!(told(&peer, secrets, 1, false).await, [] as [Value; 0], "{secrets}");
    }
}

#[tokio::test]
async fn a_secret_is_changed_without_a_gap() {
    let (old, new) = (SECRET, "bmV3IHNlc2FtZSBwbGVhc2Uh");
    let both = format!("\"{new}\", \"{old}\"");
    for (receiver, sender) in
        [(old, &both), (&format!("{old} {new}"), &both), (new, &both), (new, &format!("\"{new}\""))]
    {
        let peer = Peer::receiver(receiver);
        assert_eq!(told(&peer, sender, 1, true).await.len(), 10, "{receiver} {sender}");
    }
}

#[tokio::test]
async fn hk_01_a_certificate_that_nobody_vouches_for_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args([Path::new("-keyout"), &key, Path::new("-out"), &certificate])
        .output()
        .expect("the peer openssl is needed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let program = "import http.server, ssl, sys\n\
        class Yes(http.server.BaseHTTPRequestHandler):\n    \
            def do_POST(self):\n        print('asked', flush=True)\n        self.send_response(204)\n        self.end_headers()\n\
        server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Yes)\n\
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        context.load_cert_chain(sys.argv[2], sys.argv[3])\n\
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)\n\
        server.serve_forever()\n";
    let peer = Peer::start(|port| {
        let mut command = Command::new("python3");
        command.args(["-c", program, &port.to_string()]).args([&certificate, &key]).stderr(Stdio::null());
        command
    });
    let url = format!("https://localhost:{}/", peer.port);
    let asks = Asks::new(&asking(&url), "edge-1").unwrap();
    assert_eq!(asks.ask(0, &question()).await, Answer::Failure(Failure::Connect));
    assert_eq!(peer.lines.try_iter().count(), 0, "the question went out");

    // The same certificate serves where the system trusts it, so that this is what the failure was about.
    // SAFETY: tests run in a process each, and no other thread reads the environment now.
    unsafe { std::env::set_var("SSL_CERT_FILE", &certificate) };
    let asks = Asks::new(&asking(&url), "edge-1").unwrap();
    assert!(matches!(asks.ask(0, &question()).await, Answer::Allow(_)));
    // Under a name that is not in it, it does not.
    let asks = Asks::new(&asking(&format!("https://127.0.0.1:{}/", peer.port)), "edge-1").unwrap();
    assert_eq!(asks.ask(0, &question()).await, Answer::Failure(Failure::Connect));
}
