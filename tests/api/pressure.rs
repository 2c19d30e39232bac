//! What the API leaves out while the server is under pressure.

use sluicegate::admission::{Load, LoadState};
use sluicegate::names::Kind;

use crate::desk::{Desk, id, row};

fn pressed(state: LoadState) -> Desk {
    let desk = Desk::new(100);
    desk.add(row(1, Kind::Play, "live", "a", "192.0.2.7:1234"));
    desk.change(|view| view.load = Load { state, patience_percent: 50 });
    desk
}

#[tokio::test]
async fn load_orange_makes_no_lists_and_says_when_to_ask_again() {
    for state in LoadState::ALL {
        let client = pressed(state).client();
        let is_paused = state >= LoadState::Orange;
        for list in ["/v1/sessions?kind=play", "/v1/streams"] {
            let reply = client.get(list).await;
            if is_paused {
                reply.problem(503);
                assert_eq!(reply.header("retry-after"), Some("5"), "{list}");
                assert_eq!(reply.json()["type"], "urn:sluicegate:problem:overloaded");
            } else {
                assert_eq!(reply.status, 200, "{list} in {state:?}");
            }
        }
        // In the words of the other system.
        let reply = client.get("/api/v3/session/active").await;
        assert_eq!(reply.status, if is_paused { 503 } else { 200 }, "{state:?}");
        if is_paused {
            assert_eq!(reply.json()["code"], 503);
        }
        // One session, numbers, health and orders are always answered.
        for path in [format!("/v1/sessions/{}", id(1)).as_str(), "/v1/summary", "/v1/node", "/metrics", "/healthz"] {
            assert_eq!(client.get(path).await.status, 200, "{path} in {state:?}");
        }
        let order = r#"{"filter":{"kind":"play"},"dry_run":true}"#;
        assert_eq!(client.post("/v1/sessions/terminate", order).await.status, 200, "{state:?}");
    }
}

#[tokio::test]
async fn load_red_is_not_ready_and_says_why() {
    for (state, status) in [(LoadState::Green, 200), (LoadState::Orange, 200), (LoadState::Red, 503)] {
        let client = pressed(state).client();
        let reply = client.get("/readyz?verbose=true").await;
        assert_eq!(reply.status, status, "{state:?}");
        let body = reply.json();
        assert_eq!(body["status"], if status == 200 { "ok" } else { "overloaded" });
        let load = body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "load").unwrap().clone();
        assert_eq!((&load["ok"], &load["detail"]), (&(status == 200).into(), &state.as_str().into()));
        assert_eq!(client.get("/v1/node").await.json()["load_state"], state.as_str());
    }
}
