//! Bans over HTTP: made, listed, lifted, and the fields that are wrong.

use axum::body::Body;
use sluicegate::admission::Whom;
use sluicegate::names::Kind;

use crate::desk::{Desk, Order, key};

#[tokio::test]
async fn a_ban_is_made_listed_and_lifted() {
    let desk = Desk::new(16);
    let client = desk.client();
    let body = r#"{"address":"::ffff:192.0.2.1","kind":"play","app":"live","stream":"cam","ban_for":"10m"}"#;
    let made = client.post("/v1/bans", body).await.json();
    assert_eq!((&made["ban"]["address"], &made["ban"]["vhost"]), (&"192.0.2.1".into(), &"default".into()));
    let everywhere = client.post("/v1/bans", r#"{"address":"2001:db8::1","ban_for":60}"#).await.json();
    assert!(everywhere["ban"]["kind"].is_null() && everywhere["ban"]["stream"].is_null());

    let orders = desk.orders();
    let [Order::Ban(first), Order::Ban(second)] = orders.as_slice() else { panic!("{orders:?}") };
    let address = "192.0.2.1".parse().unwrap();
    assert_eq!(first.whom, Whom::exactly(address, Kind::Play, key("default", "live", "cam")));
    assert_eq!((second.whom.kind, &second.whom.key), (None, &None));

    let listed = client.get("/v1/bans").await.json();
    assert_eq!(listed["total"], 2);
    assert_eq!(listed["bans"][0]["address"], "2001:db8::1", "the one that ends first comes first");
    let seconds = listed["bans"][1]["seconds"].as_f64().unwrap();
    assert!(seconds > 500.0 && seconds <= 600.0, "{seconds}");
    assert_eq!(client.get("/v1/bans?limit=1").await.json()["bans"].as_array().unwrap().len(), 1);

    let id = made["ban"]["id"].as_str().unwrap();
    assert_eq!(listed["bans"][1]["id"], id);
    let lift = |id: &str| {
        let path = format!("/v1/bans/{id}");
        let client = &client;
        async move { client.send("DELETE", &path, &[], Body::empty()).await }
    };
    assert_eq!(lift(id).await.json()["lifted"], true);
    lift(id).await.problem(404);
    lift("0123").await.problem(400);
    assert_eq!(client.get("/v1/bans").await.json()["total"], 1);
}

#[tokio::test]
async fn a_shorter_ban_is_answered_with_the_longer_one_that_stays_in_force() {
    let desk = Desk::new(16);
    let client = desk.client();
    let long = client.post("/v1/bans", r#"{"address":"192.0.2.1","ban_for":"1h"}"#).await.json();
    let short = client.post("/v1/bans", r#"{"address":"192.0.2.1","ban_for":"1m"}"#).await.json();
    assert_eq!(short["ban"]["until"], long["ban"]["until"]);
    assert_eq!(client.get("/v1/bans").await.json()["bans"][0]["until"], long["ban"]["until"]);
}

#[tokio::test]
async fn ap_11_a_ban_needs_an_address_and_a_time_and_says_which_field_is_wrong() {
    let desk = Desk::new(16);
    let client = desk.client();
    for (body, field) in [
        (r#"{"ban_for":"1h"}"#, "address"),
        (r#"{"address":"192.0.2.0/24","ban_for":"1h"}"#, "address"),
        (r#"{"address":"*","ban_for":"1h"}"#, "address"),
        (r#"{"address":"192.0.2.1"}"#, "ban_for"),
        (r#"{"address":"192.0.2.1","ban_for":0}"#, "ban_for"),
        (r#"{"address":"192.0.2.1","ban_for":-1}"#, "ban_for"),
        (r#"{"address":"192.0.2.1","ban_for":"1h","kind":"watch"}"#, "kind"),
        (r#"{"address":"192.0.2.1","ban_for":"1h","app":"live"}"#, "stream"),
        (r#"{"address":"192.0.2.1","ban_for":"1h","stream":"cam"}"#, "app"),
        (r#"{"address":"192.0.2.1","ban_for":"1h","app":"../x","stream":"cam"}"#, "app"),
        (r#"{"address":"192.0.2.1","ban_for":"1h","vhost":"a"}"#, "app"),
        (r#"{"address":"192.0.2.1","ban_for":"1h","until":"x"}"#, "until"),
    ] {
        assert_eq!(client.post("/v1/bans", body).await.problem(400).as_deref(), Some(field), "{body}");
    }
    assert!(desk.orders().is_empty());
}
