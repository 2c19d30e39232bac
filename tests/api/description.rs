//! The description of the API against the API itself, by a fuzzer that reads the one and asks the other.

use std::process::Command;
use std::sync::mpsc;

use sluicegate::api::settings::{Role, Token};
use sluicegate::api::{Settings, serve};
use sluicegate::names::Kind;
use sluicegate::session::Reason;
use sluicegate::stdx::units::Secret;
use tokio::net::TcpListener;

use crate::desk::{Desk, id, row};
use crate::{days, history};

/// Examples for each operation, enough for every kind of wrong input to come up once.
const EXAMPLES: &str = "25";

const TOKEN: &str = "admin-0123456789abcdefghij";

#[test]
fn a_schema_driven_fuzzer_finds_nothing() {
    fuzz(&[]);
}

#[test]
fn a_schema_driven_fuzzer_finds_nothing_behind_a_token() {
    fuzz(&[Token { token: Secret::new(TOKEN.into()), role: Role::Admin }]);
}

fn fuzz(tokens: &[Token]) {
    let settings = Settings { rate: 1_000_000, tokens: tokens.to_vec(), ..Settings::default() };
    let (say, heard) = mpsc::channel();
    // The server has a thread of its own, as in the real one; it ends with the process.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let desk = Desk::new(64);
            for n in 0..200 {
                desk.add(row(n, Kind::Play, "live", &format!("s{n}"), "10.1.1.1:1935"));
            }
            desk.finish(id(3), Reason::ClientDone.into());
            let rows: Vec<_> = (0..200).map(|n| days::row(n, 1_795_132_800_000 + n * 60_000, None)).collect();
            let (_folder, history) = history::history(&rows);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            say.send(listener.local_addr().unwrap()).unwrap();
            serve(listener, desk.router_with(history, &settings), std::future::pending()).await.unwrap();
        });
    });
    let address = heard.recv().unwrap();
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/openapi-fuzz"))
        .args([&format!("http://{address}"), EXAMPLES])
        .env("SLUICEGATE_FUZZ_RATE", "2000/s")
        .env("SLUICEGATE_FUZZ_SEED", "1")
        .env("SLUICEGATE_FUZZ_DRAIN", "1")
        .env("SLUICEGATE_TOKEN", if tokens.is_empty() { "" } else { TOKEN })
        .output()
        .expect("tools/openapi-fuzz runs");
    assert!(
        output.status.success(),
        "{}{}\n(the fuzzer is schemathesis; tools/test installs it)",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
