//! Commands that are out of place, too many, or say strange things.

use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id::VIDEO;

use crate::support::calm::Calm;
use crate::support::hand::{Hand, command_body, connect_object, picture, picture_number, text};
use crate::support::{PATIENCE, Server, eventually};

fn object(items: Vec<(&str, Value)>) -> Value {
    Value::Object(items.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect())
}

#[test]
fn rt_46_connect_needs_an_application_and_nothing_else() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let codes = || Value::StrictArray(vec![text("av01"), text("hvc1"), Value::Null, text("*")]);
    let strange = object(vec![
        ("app", text("strange")),
        ("tcUrl", text("rtmp://127.0.0.1/strange")),
        ("objectEncoding", text("three")),
        ("fourCcList", codes()),
        ("videoFourCcInfoMap", object(vec![("*", Value::Number(7.0))])),
        ("", object(vec![("deep", Value::StrictArray(vec![object(vec![("er", Value::Boolean(true))])]))])),
        ("capsEx", Value::Number(f64::NAN)),
        ("unheard of", Value::Undefined),
    ]);
    for (app, connect) in [
        ("only-app", object(vec![("app", text("only-app"))])),
        ("from/url", object(vec![("tcUrl", text("rtmp://127.0.0.1:1935/from/url"))])),
        ("null-app", object(vec![("app", Value::Null), ("tcUrl", text("rtmp://h/null-app"))])),
        ("strange", strange),
    ] {
        let mut hand = Hand::handshaken(server.rtmp);
        hand.command(0, "connect", 1.0, &[connect]);
        hand.expect_code("NetConnection.Connect.Success");
        hand.command(0, "createStream", 2.0, &[Value::Null]);
        hand.publish("x");
        hand.expect_code("NetStream.Publish.Start");
        assert_eq!(hand.session(&server)["app"], app);
        calm.beat();
    }
    for connect in [
        object(vec![]),
        object(vec![("tcUrl", text("rtmp://127.0.0.1/"))]),
        object(vec![("app", Value::Number(7.0)), ("tcUrl", text("rtmp://127.0.0.1/live"))]),
        Value::Null,
    ] {
        let mut hand = Hand::handshaken(server.rtmp);
        hand.command(0, "connect", 1.0, std::slice::from_ref(&connect));
        hand.drain();
        assert_eq!(hand.codes(), ["NetConnection.Connect.InvalidApp"], "{connect:?}");
        assert_eq!(hand.replies[0].name, "_error");
        assert_eq!(server.wait_for_attempt(hand.local()), ("protocol_error".into(), "refused".into()));
    }
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_52_commands_before_connect_close() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    for name in ["publish", "createStream", "play", "FCPublish"] {
        let mut hand = Hand::handshaken(server.rtmp);
        hand.command(0, name, 2.0, &[Value::Null, text("x")]);
        hand.drain();
        assert_eq!(server.wait_for_attempt(hand.local()), ("protocol_error".into(), "connect_first".into()), "{name}");
        assert_eq!(hand.replies, [], "{name}");
        calm.beat();
    }
    // A second connect ends even a publisher, who hears why.
    let mut hand = Hand::publishing(server.rtmp, "live", "twice");
    let session = hand.session(&server);
    hand.command(0, "connect", 9.0, &[connect_object("live")]);
    hand.drain();
    assert_eq!(hand.answer("_error", 9.0).map(|it| it.code()), Some("NetConnection.Connect.Rejected"));
    assert_eq!(hand.wait_for_end(&server, &session)["reason"], "protocol_error");
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_53_the_ninth_stream_is_an_error_and_a_flood_of_commands_closes() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let mut hand = Hand::connected(server.rtmp, "live");
    // Ids of nothing.
    for id in [99.0, 0.0, -1.0, 1.5, f64::NAN, f64::INFINITY, 1e308] {
        hand.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(id)]);
    }
    for stream_id in [0, 7, u32::MAX] {
        hand.command(stream_id, "closeStream", 0.0, &[Value::Null]);
    }
    // `connected` made the first.
    for number in 2..=9 {
        hand.command(0, "createStream", 10.0 + f64::from(number), &[Value::Null]);
    }
    hand.expect("the ninth answer", |it| it.answer("_error", 19.0).is_some());
    for number in 2..=8 {
        let answer = hand.answer("_result", 10.0 + f64::from(number)).expect("eight streams");
        assert_eq!(answer.args[1].as_number(), Some(f64::from(number)));
    }
    hand.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(5.0)]);
    hand.command(0, "createStream", 30.0, &[Value::Null]);
    hand.expect("the place of the fifth", |it| it.answer("_result", 30.0).is_some());
    assert_eq!(hand.answer("_result", 30.0).unwrap().args[1].as_number(), Some(5.0));
    calm.beat();

    let flood: Vec<u8> = (0..1_000).flat_map(|_| create_stream(&hand)).collect();
    hand.write(&flood);
    assert_eq!(server.wait_for_attempt(hand.local()), ("limit_exceeded".into(), "command_rate".into()));

    // The same on a connection that plays.
    let mut player = Hand::playing(server.rtmp, "live", "calm");
    let session = player.session(&server);
    player.write(&flood);
    let ended = player.wait_for_end(&server, &session);
    assert_eq!((&ended["reason"], &ended["detail"]), (&"limit_exceeded".into(), &"command_rate".into()), "{ended:#}");
    assert_eq!(server.metrics().sum("sluicegate_limit_hits_total", "limit=\"command_rate\""), 2);
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_53_what_is_wrong_behind_a_verdict_is_told_as_what_it_is() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    // All of it in one piece with `connect`, and so read only when that is answered.
    let mut hand = Hand::handshaken(server.rtmp);
    let connect = hand.encode(20, 0, 0, &command_body("connect", 1.0, &[connect_object("live")]));
    let flood = create_stream(&hand).repeat(200);
    hand.write(&[connect.clone(), flood].concat());
    assert_eq!(server.wait_for_attempt(hand.local()), ("limit_exceeded".into(), "command_rate".into()));
    // The same behind `publish`.
    let mut hand = Hand::handshaken(server.rtmp);
    let stream = create_stream(&hand);
    let publish = hand.encode(20, 1, 0, &command_body("publish", 3.0, &[Value::Null, text("hasty"), text("live")]));
    let illegal = hand.encode(1, 0, 0, &[0, 0, 0, 0]);
    hand.write(&[connect, stream, publish, illegal].concat());
    hand.drain();
    let of_hasty = || server.events("session.closed").into_iter().find(|(_, it)| it["stream"] == "hasty");
    eventually("its session is closed", || of_hasty().is_some());
    let closed = of_hasty().unwrap().1;
    assert_eq!((&closed["reason"], &closed["detail"]), (&"protocol_error".into(), &"chunk_size".into()), "{closed:#}");
    calm.assert_undisturbed(&server);
}

fn create_stream(hand: &Hand) -> Vec<u8> {
    hand.encode(20, 0, 0, &command_body("createStream", 40.0, &[Value::Null]))
}

#[test]
fn rt_54_a_connection_has_one_role_at_a_time() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let mut publisher = Hand::publishing(server.rtmp, "live", "one-role");
    publisher.publish("another");
    publisher.expect_code("NetStream.Publish.BadConnection");
    publisher.play("calm");
    publisher.expect_code("NetStream.Play.Failed");
    // The same on a message stream of its own.
    publisher.command(0, "createStream", 20.0, &[Value::Null]);
    publisher.command(2, "publish", 21.0, &[Value::Null, text("another"), text("live")]);
    publisher.expect("a refusal", |it| it.answer("_error", 21.0).is_some());

    let mut player = Hand::playing(server.rtmp, "live", "one-role");
    player.publish("another");
    player.expect_code("NetStream.Publish.BadConnection");
    player.play("calm");
    player.expect_code("NetStream.Play.Failed");
    calm.beat();

    // What was there first goes on, and nothing else has begun.
    publisher.message(VIDEO, 1, 0, &picture(true, 7, 100));
    player.expect("the picture", |it| it.messages.iter().filter_map(picture_number).eq([7]));
    assert_eq!(server.wait_for_sessions("stream=one-role&state=running", 2).len(), 2);
    assert_eq!(server.sessions("stream=another").len(), 0);
    let begun = server.events("session.opened");
    assert!(begun.iter().all(|(_, it)| it["stream"] != "another"), "{begun:#?}");
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_57_play_means_live_whatever_it_says() {
    let server = Server::start("[shard]\nreport_every = \"50ms\"");
    let mut calm = Calm::start(&server, "calm");
    let mut publisher = Hand::publishing(server.rtmp, "live", "vod");
    publisher.message(VIDEO, 1, 0, &picture(true, 0, 100));
    let number = Value::Number;
    let mut players = Vec::new();
    for rest in [
        vec![number(f64::NAN), number(f64::INFINITY)],
        vec![number(-2_000.0), number(-1.0), Value::Boolean(false)],
        vec![number(1e308), number(1e308), Value::Boolean(true)],
        vec![number(0.0), number(0.0), number(3.0)],
        vec![text("now"), Value::Null, Value::StrictArray(vec![])],
    ] {
        let mut player = Hand::connected(server.rtmp, "live");
        player.command(1, "play", 0.0, &[vec![Value::Null, text("vod")], rest].concat());
        player.expect_code("NetStream.Play.Start");
        player.expect("the picture", |it| it.messages.iter().filter_map(picture_number).eq([0]));
        players.push(player);
    }
    calm.beat();

    let mut player = players.pop().unwrap();
    let session = player.session(&server);
    for at in [f64::NAN, -1.0, 1e308, 5_000.0] {
        player.command(1, "seek", 0.0, &[Value::Null, number(at)]);
    }
    player.expect("four notices", |it| it.count("NetStream.Seek.Notify") == 4);
    player.command(1, "play2", 0.0, &[Value::Null, object(vec![("streamName", text("calm"))])]);
    for paused in [true, false, true, true, false] {
        player.command(1, "pause", 0.0, &[Value::Null, Value::Boolean(paused), number(f64::NAN)]);
    }
    player.expect("the last notice", |it| it.count("NetStream.Unpause.Notify") == 2);
    assert_eq!(player.count("NetStream.Pause.Notify"), 3);
    publisher.message(VIDEO, 1, 40, &picture(true, 1, 100));
    player.expect("the next picture", |it| it.messages.iter().filter_map(picture_number).last() == Some(1));

    // More of it than commands may come.
    for toggle in 0..200 {
        player.command(1, "pause", 0.0, &[Value::Null, Value::Boolean(toggle % 2 == 0), number(0.0)]);
    }
    let ended = player.wait_for_end(&server, &session);
    assert_eq!((&ended["reason"], &ended["detail"]), (&"limit_exceeded".into(), &"command_rate".into()), "{ended:#}");
    for player in &mut players {
        assert!(player.read_until(PATIENCE, |it| it.messages.iter().filter_map(picture_number).last() == Some(1)));
    }
    eventually("the others play on", || server.sessions("kind=play&stream=vod&state=running").len() == 4);
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_55_sessions_that_follow_each_other_on_a_connection_have_a_record_each() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let mut publisher = Hand::connected(server.rtmp, "live");
    let mut player = Hand::connected(server.rtmp, "live");
    for round in 0..3_u64 {
        publisher.publish("turns");
        publisher.expect("a start", |it| it.count("NetStream.Publish.Start") as u64 == round + 1);
        publisher.message(VIDEO, 1, round * 40, &picture(true, round, 100));
        player.play("turns");
        player.expect("the picture", |it| it.messages.iter().filter_map(picture_number).last() == Some(round));
        player.command(1, "closeStream", 0.0, &[Value::Null]);
        player.expect("a stop", |it| it.count("NetStream.Play.Stop") as u64 == round + 1);
        if round % 2 == 0 {
            publisher.command(0, "FCUnpublish", 0.0, &[Value::Null, text("turns")]);
        } else {
            publisher.command(1, "closeStream", 0.0, &[Value::Null]);
        }
        publisher.expect("a stop", |it| it.count("NetStream.Unpublish.Success") as u64 > round);
        calm.beat();
    }
    let mut bytes = 0;
    for hand in [&publisher, &player] {
        server.wait_for_sessions(&format!("remote={}", hand.local()), 0);
        let events = server.events("session");
        let of_hand = |name: &str| -> Vec<&serde_json::Value> {
            let is_mine =
                |it: &&(String, serde_json::Value)| it.0 == name && it.1["remote"] == hand.local().to_string();
            events.iter().filter(is_mine).map(|(_, data)| data).collect()
        };
        let (opened, started, closed) =
            (of_hand("session.opened"), of_hand("session.started"), of_hand("session.closed"));
        let ids =
            |of: &[&serde_json::Value]| -> Vec<String> { of.iter().map(|it| it["session"].to_string()).collect() };
        assert_eq!(opened.len(), 3, "{opened:#?}");
        assert_eq!((ids(&opened), ids(&opened)), (ids(&started), ids(&closed)));
        assert!(closed.iter().all(|it| it["reason"] == "client_done" && it["seq"].as_u64() > Some(3)), "{closed:#?}");
        bytes = closed.iter().map(|it| it["bytes"]["tx"].as_u64().unwrap()).sum();
    }
    // The last of them is the player, and every byte it got was some session's.
    assert_eq!(bytes, player.received);
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_51_rt_56_a_request_that_cannot_be_one_is_an_attempt_with_its_reason() {
    let server = Server::start("");
    let mut calm = crate::support::calm::Calm::start(&server, "calm");
    let long = "x".repeat(600);
    let twice = "cam?token=a&token=b";
    for (name, kind, rule) in [
        ("", "live", "stream_name"),
        (&long, "live", "stream_name"),
        (twice, "live", "stream_query"),
        ("cam", "later", "publish_type"),
    ] {
        let mut hand = Hand::connected(server.rtmp, "live");
        hand.command(1, "publish", 5.0, &[Value::Null, text(name), text(kind)]);
        hand.expect("it is refused", |it| !it.codes().is_empty());
        let local = hand.local();
        drop(hand);
        assert_eq!(server.wait_for_attempt(local), ("protocol_error".into(), rule.into()), "{name} {kind}");
    }
    let mut player = Hand::connected(server.rtmp, "live");
    player.command(1, "play", 5.0, &[Value::Null, text("")]);
    player.expect_code("NetStream.Play.StreamNotFound");
    assert_eq!(server.wait_for_attempt(player.local()), ("protocol_error".into(), "stream_name".into()));
    calm.assert_undisturbed(&server);
}
