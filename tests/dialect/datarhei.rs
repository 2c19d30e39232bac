//! datarhei Core v16.16.0, by the numbers of the contract's acceptance checks. The golden answers are in
//! `tests/golden/datarhei`.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use sluicegate::api::Settings;
use sluicegate::api::settings::{Datarhei, Role, Token};
use sluicegate::names::Kind;
use sluicegate::session::{Reason, State};
use sluicegate::stdx::units::Secret;

use crate::desk::{Client, Desk, START_S, id, key, row};

const ZERO_SUMMARY: &str = include_str!("../golden/datarhei/zero_summary.json");
const ACTIVE: &str = include_str!("../golden/datarhei/active.json");
const ACTIVE_PRETTY: &str = include_str!("../golden/datarhei/active_pretty.json");
const SUMMARY: &str = include_str!("../golden/datarhei/summary.json");

/// Golden answers were recorded with channels named by what stands behind the first slash.
fn golden() -> Settings {
    let datarhei = Datarhei { rtmp_app: String::new(), max_sessions: 50, max_bitrate_mbit: 100, ..Datarhei::default() };
    Settings { rate: 1_000_000, datarhei, ..Settings::default() }
}

fn one_player() -> Desk {
    let desk = Desk::new(1);
    let mut player = row(0, Kind::Play, "live", "x", "198.51.100.4:40001");
    player.counters.tx_bytes = 1_000;
    player.rates.tx_bps = [0.0, 8_000.0, 0.0];
    Arc::make_mut(&mut player.facts).opened_unix_ms = 1_795_155_521_999;
    desk.add(player);
    desk
}

async fn text(client: &Client, path: &str) -> String {
    let reply = client.get(path).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text().to_owned()
}

#[tokio::test]
async fn check_01_active_without_parameter() {
    let reply = Desk::new(1).client().get("/api/v3/session/active").await;
    assert_eq!((reply.status, reply.text()), (200, "{\"\":[]}\n"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn check_02_summary_without_parameter() {
    assert_eq!(text(&Desk::new(1).client(), "/api/v3/session").await, ZERO_SUMMARY);
}

#[tokio::test]
async fn check_03_unknown_collectors_have_the_zero_value() {
    let client = one_player().client_with(&golden());
    assert_eq!(text(&client, "/api/v3/session/active?collectors=nope").await, "{\"nope\":[]}\n");
    let expected = ZERO_SUMMARY.replacen("\"\"", "\"nope\"", 1);
    assert_eq!(text(&client, "/api/v3/session?collectors=nope").await, expected);
}

#[tokio::test]
async fn check_04_keys_are_sorted() {
    let client = Desk::new(1).client();
    for query in ["rtmp%2Chls", "rtmp,hls", "hls,rtmp,hls", "rtmp%252Chls"] {
        let path = format!("/api/v3/session/active?collectors={query}");
        assert_eq!(text(&client, &path).await, "{\"hls\":[],\"rtmp\":[]}\n");
    }
}

#[tokio::test]
async fn check_05_names_are_not_trimmed() {
    let client = one_player().client_with(&golden());
    assert_eq!(text(&client, "/api/v3/session/active?collectors=hls,%20rtmp").await, "{\" rtmp\":[],\"hls\":[]}\n");
    assert_eq!(text(&client, "/api/v3/session/active?collectors=hls,").await, "{\"\":[],\"hls\":[]}\n");
    assert_eq!(text(&client, "/api/v3/session/active?collectors=%3C%FF").await, "{\"\\u003c\\ufffd\":[]}\n");
}

#[tokio::test]
async fn check_06_a_player_byte_for_byte() {
    let client = one_player().client_with(&golden());
    assert_eq!(text(&client, "/api/v3/session/active?collectors=rtmp").await, ACTIVE);
}

#[tokio::test]
async fn check_07_no_bandwidth_before_the_first_full_second() {
    let desk = one_player();
    let mut young = row(1, Kind::Play, "live", "x", "198.51.100.5:40001");
    young.rates.tx_bps = [1e6; 3];
    Arc::make_mut(&mut young.facts).opened_at = Instant::now() - Duration::from_millis(300);
    desk.add(young);
    let mut steady = row(2, Kind::Play, "live", "x", "198.51.100.6:40001");
    steady.rates.tx_bps[1] = 1_048_576.0;
    desk.add(steady);
    let body: serde_json::Value =
        serde_json::from_str(&text(&desk.client(), "/api/v3/session/active?collectors=rtmp").await).unwrap();
    let of = |remote: &str| {
        let list = body["rtmp"].as_array().unwrap();
        list.iter().find(|session| session["remote"] == remote).unwrap()["bandwidth_tx_kbit"].clone()
    };
    assert_eq!((of("198.51.100.5:40001"), of("198.51.100.6:40001")), (0.into(), 1_024.into()));
}

#[tokio::test]
async fn check_09_an_ampersand_is_escaped_and_both_answers_are_byte_for_byte() {
    let desk = Desk::new(1);
    let mut publisher = row(0, Kind::Publish, "live", "a&b.stream", "198.51.100.4:1");
    publisher.counters.tx_bytes = 5 << 20;
    publisher.counters.rx_bytes = (1 << 20) - 1;
    desk.add(publisher);
    desk.finish(id(0), Reason::ClientDone.into());
    let mut player = row(1, Kind::Play, "live", "a&b.stream", "[::ffff:198.51.100.7]:2");
    player.counters.rx_bytes = 3_210;
    player.counters.tx_bytes = 52_439_286;
    player.rates.rx_bps[1] = 8_388_608.8;
    player.rates.tx_bps[1] = 41_951_428.8;
    desk.add(player);
    let client = desk.client_with(&golden());
    assert_eq!(text(&client, "/api/v3/session?collectors=rtmp").await, SUMMARY);
}

#[tokio::test]
async fn check_10_long_answers_are_compressed_for_who_accepts_it() {
    let desk = one_player();
    let client = desk.client();
    let gzip = [("accept-encoding", "deflate, gzip;q=0.5")];
    let path = "/api/v3/session/active?collectors=rtmp";
    let short = client.send("GET", path, &gzip, Body::empty()).await;
    assert_eq!(short.header("content-encoding"), None);
    assert!(short.headers.get_all("vary").iter().any(|value| value == "Accept-Encoding"));
    for n in 1..10 {
        desk.add(row(n, Kind::Play, "live", "x", "198.51.100.4:40001"));
    }
    let plain = client.get(path).await;
    assert!(plain.body.len() >= 1_000);
    assert_eq!(plain.header("content-encoding"), None);
    let long = client.send("GET", path, &gzip, Body::empty()).await;
    assert_eq!(long.header("content-encoding"), Some("gzip"));
    assert_eq!(long.header("content-type"), Some("application/json"));
    assert!(long.headers.get_all("vary").iter().any(|value| value == "Accept-Encoding"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(long.body.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    let refused = client.send("GET", path, &[("accept-encoding", "gzip;q=0")], Body::empty()).await;
    assert_eq!(refused.header("content-encoding"), None);
}

#[tokio::test]
async fn check_11_pretty_indents_by_two() {
    let client = one_player().client_with(&golden());
    for query in ["pretty", "pretty=", "pretty=0", "pretty=true"] {
        let path = format!("/api/v3/session/active?collectors=rtmp,hls&{query}");
        assert_eq!(text(&client, &path).await, ACTIVE_PRETTY);
    }
}

#[tokio::test]
async fn check_12_errors_have_three_members_and_head_has_no_body() {
    let client = Desk::new(1).client();
    for (method, path, status, body) in [
        ("GET", "/api/v3/nope", 404, "{\"code\":404,\"message\":\"Not Found\",\"details\":[\"Not Found\"]}\n"),
        ("HEAD", "/api/v3/nope", 404, ""),
        (
            "POST",
            "/api/v3/session",
            405,
            "{\"code\":405,\"message\":\"Method Not Allowed\",\"details\":[\"Method Not Allowed\"]}\n",
        ),
        ("HEAD", "/api/v3/session", 200, ""),
    ] {
        let reply = client.send(method, path, &[], Body::empty()).await;
        assert_eq!((reply.status, reply.text()), (status, body), "{method} {path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn check_12_a_caller_without_a_token_is_refused_in_the_same_shape() {
    let tokens = vec![Token { token: Secret::new("read-0123456789abcdefghij".into()), role: Role::Read }];
    let client = Desk::new(1).client_with(&Settings { tokens, ..Settings::default() });
    let reply = client.get("/api/v3/session").await;
    let body = "{\"code\":401,\"message\":\"Unauthorized\",\"details\":[\"Missing or invalid JWT token\"]}\n";
    assert_eq!((reply.status, reply.text()), (401, body));
    let with = [("authorization", "Bearer read-0123456789abcdefghij"), ("origin", "https://ui.example")];
    let reply = client.send("GET", "/api/v3/session", &with, Body::empty()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
}

#[tokio::test]
async fn browsers_are_told_what_they_may_ask() {
    let client = Desk::new(1).client();
    let asked = [("origin", "https://ui.example"), ("access-control-request-method", "GET")];
    let reply = client.send("OPTIONS", "/api/v3/session", &asked, Body::empty()).await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert_eq!(reply.header("access-control-allow-methods"), Some("GET,HEAD,PUT,POST,DELETE,PATCH"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("Origin,Content-Length,Content-Type,Authorization"));
    assert_eq!(reply.header("access-control-max-age"), Some("86400"));
}

#[tokio::test]
async fn check_23_a_publisher_has_the_path_as_id_and_no_extension_in_its_reference() {
    let desk = Desk::new(1);
    let mut publisher = row(0, Kind::Publish, "live", "x.flv", "198.51.100.4:40001");
    Arc::make_mut(&mut publisher.facts).query = Some("token=t".into());
    desk.add(publisher);
    let mut nested = row(1, Kind::Publish, "a.b", "c", "198.51.100.5:40001");
    Arc::make_mut(&mut nested.facts).key = key("other", "a.b", "c");
    desk.add(nested);
    let show = async |rtmp_app: &str| -> Vec<(String, String, String)> {
        let datarhei = Datarhei { rtmp_app: rtmp_app.into(), ..Datarhei::default() };
        let client = desk.client_with(&Settings { datarhei, ..Settings::default() });
        let body: serde_json::Value =
            serde_json::from_str(&text(&client, "/api/v3/session/active?collectors=rtmp").await).unwrap();
        let field = |session: &serde_json::Value, name: &str| session[name].as_str().unwrap().to_owned();
        let list = body["rtmp"].as_array().unwrap();
        list.iter().map(|one| (field(one, "id"), field(one, "local"), field(one, "reference"))).collect()
    };
    let line = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let published = line("/live/x.flv", "publish:/live/x.flv", "/live/x");
    assert_eq!(show("/").await, [published, line("/a.b/c", "publish:/a.b/c", "/a.b/c")]);
    let published = line("/live/x.flv", "publish:/live/x.flv", "x");
    assert_eq!(show("/live").await, [published, line("/a.b/c", "publish:/a.b/c", "/a.b/c")]);
}

#[tokio::test]
async fn check_24_a_session_that_ends_leaves_the_list_and_is_counted_once() {
    let desk = one_player();
    let client = desk.client();
    desk.finish(id(0), Reason::ClientDone.into());
    assert_eq!(text(&client, "/api/v3/session/active?collectors=rtmp").await, "{\"rtmp\":[]}\n");
    let body: serde_json::Value =
        serde_json::from_str(&text(&client, "/api/v3/session?collectors=rtmp").await).unwrap();
    assert_eq!(body["rtmp"]["summary"]["sessions"], 1);
    assert_eq!(body["rtmp"]["active"]["sessions"], 0);
}

#[tokio::test]
async fn check_26_sessions_one_after_the_other_add_up_exactly() {
    let desk = Desk::new(1);
    for n in 0..5 {
        let mut player = row(n, Kind::Play, "live", "x", "198.51.100.4:40001");
        player.counters.tx_bytes = 1 << 20;
        player.counters.rx_bytes = (1 << 19) + 1;
        desk.add(player);
        desk.finish(id(n), Reason::ClientDone.into());
    }
    let body: serde_json::Value =
        serde_json::from_str(&text(&desk.client(), "/api/v3/session?collectors=rtmp").await).unwrap();
    let summary = &body["rtmp"]["summary"];
    for totals in [
        summary,
        &summary["remote"]["198.51.100.4:40001"],
        &summary["remote"]["198.51.100.4:40001"]["local"]["play:/live/x"],
        &summary["local"]["play:/live/x"],
        &summary["reference"]["/live/x"],
    ] {
        // Two and a half megabytes and five bytes, cut off.
        assert_eq!((&totals["sessions"], &totals["traffic_rx_mb"]), (&5.into(), &2.into()), "{totals}");
        assert_eq!(totals["traffic_tx_mb"], 5);
    }
}

#[tokio::test]
async fn ignored_peers_and_sessions_that_have_not_begun_are_not_collected() {
    let desk = Desk::new(1);
    desk.add(row(0, Kind::Play, "live", "x", "127.0.0.1:1"));
    desk.add(row(1, Kind::Play, "live", "x", "[::1]:1"));
    desk.add(row(2, Kind::Play, "live", "x", "[::ffff:127.0.0.1]:1"));
    let mut pending = row(3, Kind::Play, "live", "x", "198.51.100.4:1");
    pending.state = State::Establishing;
    desk.add(pending);
    desk.finish(id(0), Reason::ClientDone.into());
    let client = desk.client();
    let body: serde_json::Value =
        serde_json::from_str(&text(&client, "/api/v3/session?collectors=rtmp").await).unwrap();
    assert_eq!((&body["rtmp"]["active"]["sessions"], &body["rtmp"]["summary"]["sessions"]), (&0.into(), &0.into()));
    let all = Datarhei { ip_ignorelist: Vec::new(), ..Datarhei::default() };
    let client = desk.client_with(&Settings { datarhei: all, ..Settings::default() });
    let body: serde_json::Value =
        serde_json::from_str(&text(&client, "/api/v3/session?collectors=rtmp").await).unwrap();
    assert_eq!((&body["rtmp"]["active"]["sessions"], &body["rtmp"]["summary"]["sessions"]), (&2.into(), &1.into()));
}

#[tokio::test]
async fn sessions_are_listed_by_their_time_of_coming() {
    let desk = Desk::new(1);
    for (n, later) in [(0_u64, 3_u64), (1, 2), (2, 1)] {
        let mut player = row(n, Kind::Play, "live", "x", &format!("198.51.100.{later}:1"));
        Arc::make_mut(&mut player.facts).opened_at =
            Instant::now() - Duration::from_secs(10) + Duration::from_millis(later);
        desk.add(player);
    }
    let body: serde_json::Value =
        serde_json::from_str(&text(&desk.client(), "/api/v3/session/active?collectors=rtmp").await).unwrap();
    let remotes: Vec<_> = body["rtmp"].as_array().unwrap().iter().map(|session| session["remote"].clone()).collect();
    assert_eq!(remotes, ["198.51.100.1:1", "198.51.100.2:1", "198.51.100.3:1"]);
    assert_eq!(body["rtmp"][0]["created_at"], START_S);
}

#[tokio::test]
async fn a_large_list_is_rendered_like_a_small_one() {
    let desk = Desk::new(1);
    for n in 0..2_000 {
        desk.add(row(n, Kind::Play, "live", "x", "198.51.100.4:40001"));
    }
    let body: serde_json::Value =
        serde_json::from_str(&text(&desk.client(), "/api/v3/session?collectors=rtmp").await).unwrap();
    assert_eq!(body["rtmp"]["active"]["list"].as_array().unwrap().len(), 2_000);
    assert_eq!(body["rtmp"]["active"]["sessions"], 2_000);
}

#[tokio::test]
async fn the_plural_paths_are_an_option_and_the_dialect_is_too() {
    let desk = Desk::new(1);
    assert_eq!(desk.client().get("/api/v3/sessions/active").await.status, 404);
    let with = |datarhei| desk.client_with(&Settings { datarhei, ..Settings::default() });
    let plural = with(Datarhei { plural_alias: true, ..Datarhei::default() });
    assert_eq!(text(&plural, "/api/v3/sessions/active").await, "{\"\":[]}\n");
    assert_eq!(text(&plural, "/api/v3/sessions").await, ZERO_SUMMARY);
    let off = with(Datarhei { enabled: false, ..Datarhei::default() });
    assert_eq!(off.get("/api/v3/session").await.status, 404);
}
