//! A running server is given another configuration.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::calm::Calm;
use crate::support::hand::Hand;
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// The file of the server, for changes to it.
fn file(server: &Server) -> String {
    std::fs::read_to_string(server.config_path()).unwrap()
}

/// Puts `to` where the file says `from`.
fn edit(server: &Server, from: &str, to: &str) {
    let text = file(server);
    assert!(text.contains(from), "{from} is not in\n{text}");
    server.replace_config(&text.replacen(from, to, 1));
}

fn reload(server: &Server) -> Value {
    let (status, answer) = server.call("POST", "/v1/reload", None);
    assert_eq!(status, 200, "{answer:#}");
    answer
}

fn refused(server: &Server) -> String {
    let (status, answer) = server.call("POST", "/v1/reload", None);
    assert_eq!(status, 422, "{answer:#}");
    answer["detail"].as_str().unwrap().to_owned()
}

/// Runs a command of the server's own against it.
fn sluicegate(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(arguments)
        .args(["--api", &format!("http://{}", server.api)])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_rule_that_changes_ends_those_whom_it_denies_and_nobody_else() {
    let server = Server::start("[shard]\ncount = 2\n[admission]\nplay = \"open\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "rules").start();
    publisher.send_picture(0);
    let mut players: Vec<Raw> = (0..8).map(|_| Raw::play(server.rtmp, "live", "rules").start()).collect();
    server.wait_for_sessions("kind=play", 8);

    // Something else changes: the rule is not looked at.
    edit(&server, "play = \"open\"", "play = \"open\"\nduplicate_publish = \"reject\"");
    let answer = reload(&server);
    assert_eq!(answer["changed"], json!(["admission.duplicate_publish"]));
    assert_eq!((&answer["closed"], &answer["generation"]), (&0.into(), &2.into()), "{answer:#}");
    assert_eq!(server.sessions("").len(), 9);
    // Control obeys it.
    let mut second = Raw::publish(server.rtmp, "live", "rules");
    assert!(second.pump_until(PATIENCE, |it| it.refused.is_some()), "the second publisher was let in");

    edit(&server, "play = \"open\"", "play = \"deny\"");
    let answer = reload(&server);
    assert_eq!((&answer["changed"], &answer["closed"]), (&json!(["admission.play"]), &8.into()), "{answer:#}");
    // When the answer is there, they are gone.
    for player in &mut players {
        player.drain();
        assert!(player.refused.is_some(), "no goodbye");
    }
    server.wait_for_sessions("kind=play", 0);
    let closed = server.events("session.closed");
    let changed = closed.iter().filter(|(_, it)| it["kind"] == "play");
    for (_, it) in changed {
        assert_eq!(
            (&it["reason"], &it["detail"], &it["side"]),
            (&"config_changed".into(), &"admission.play".into(), &"server".into())
        );
    }
    assert_eq!(server.sessions("kind=publish").len(), 1);
    let mut late = Raw::play(server.rtmp, "live", "rules");
    assert!(late.pump_until(PATIENCE, |it| it.refused.is_some()), "a player was let in");

    edit(&server, "play = \"deny\"", "play = \"loopback\"");
    assert_eq!(reload(&server)["closed"], 0);
    Raw::play(server.rtmp, "live", "rules").start();
    let metrics = server.metrics();
    assert_eq!(metrics.sum("sluicegate_config_generation", ""), 4);
    assert_eq!(metrics.sum("sluicegate_config_reloads_total", "applied"), 3);
    assert_eq!(metrics.sum("sluicegate_config_reloads_total", "refused"), 0);
}

#[test]
fn limits_times_tokens_and_the_log_obey_a_reload() {
    let server = Server::start("[rtmp]\ncommand_rate = 50\n[sessions]\nplay_wait = \"60s\"\n[log]\nlevel = \"info\"");
    let mut calm = Calm::start(&server, "calm");
    let old = Hand::connected(server.rtmp, "live");
    edit(&server, "command_rate = 50", "command_rate = 5");
    edit(&server, "play_wait = \"60s\"", "play_wait = \"0s\"");
    edit(&server, "level = \"info\"", "level = \"debug\"");
    edit(&server, "unauthenticated_per_ip = 0", "unauthenticated_per_ip = 2");
    let answer = reload(&server);
    let keys = ["log.level", "rtmp.command_rate", "sessions.play_wait"];
    let pending = ["shard.unauthenticated_per_ip"];
    assert_eq!((&answer["changed"], &answer["pending"]), (&json!(keys), &json!(pending)), "{answer:#}");

    // A connection that was there keeps its command rate, a new one has the new.
    let mut old = old;
    for number in 0..20 {
        old.command(0, "getStreamLength", 50.0 + f64::from(number), &[sluicegate::proto::rtmp::amf0::Value::Null]);
    }
    old.expect("twenty answers", |it| it.answer("_result", 69.0).is_some());
    let mut new = Hand::handshaken(server.rtmp);
    new.command(0, "connect", 1.0, &[crate::support::hand::connect_object("live")]);
    for number in 0..20 {
        new.command(0, "getStreamLength", 50.0 + f64::from(number), &[sluicegate::proto::rtmp::amf0::Value::Null]);
    }
    assert_eq!(server.wait_for_attempt(new.local()), ("limit_exceeded".into(), "command_rate".into()));
    drop(new);
    drop(old);
    server.settle();
    // The log says what it did not before.
    assert!(server.log().lines().any(|line| line.contains("ev=reloaded") && line.contains("log.level")));
    let _publisher = Raw::publish(server.rtmp, "live", "told").start();
    eventually("debug lines are written", || server.log().contains("DEBUG session_authorized"));
    calm.assert_undisturbed(&server);

    // Tokens: from none to one, to another.
    let first = "0123456789abcdefghijklmn";
    server.replace_config(&format!("{}\n[[api.tokens]]\ntoken = \"{first}\"\nrole = \"admin\"\n", file(&server)));
    assert_eq!(reload(&server)["changed"], json!(["api.tokens"]));
    assert_eq!(server.call("POST", "/v1/reload", None).0, 401);
    let ask = |token: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args(["reload", "--api", &format!("http://{}", server.api)])
            .env("SLUICEGATE_TOKEN", token)
            .output()
            .unwrap();
        output.status.code()
    };
    assert_eq!(ask(first), Some(0));
    edit(&server, first, "nmlkjihgfedcba9876543210");
    assert_eq!(ask(first), Some(0), "the old one holds until then");
    assert_eq!((ask(first), ask("nmlkjihgfedcba9876543210")), (Some(1), Some(0)));
    assert!(!server.log().contains(first), "a secret is in the log");
}

#[test]
fn cf_12_a_file_that_is_half_written_or_wrong_changes_nothing() {
    let server = Server::start("[admission]\nplay = \"open\"");
    let mut calm = Calm::start(&server, "calm");
    let whole = file(&server).replace("play = \"open\"", "play = \"deny\"\nbans_max = 5000");
    let mut refusals = 0;
    // Cut where a writer may be: in a key, in a text, before a bracket, in an unfinished number.
    for cut in
        [whole.find("rtmp_listen").unwrap() + 20, whole.find("deny").unwrap() + 2, whole.find("[api").unwrap() + 3]
    {
        std::fs::write(server.config_path(), &whole.as_bytes()[..cut]).unwrap();
        let problems = refused(&server);
        assert!(problems.contains("sluicegate.toml:"), "{problems}");
        refusals += 1;
    }
    for (wrong, told) in [
        (whole.replace("bans_max = 5000", "bans_mux = 5000"), "bans_max"),
        (format!("{whole}\n[rtmp]\ncommand_rate = 0\n"), "rtmp.command_rate"),
        (format!("{whole}\n[sessions]\nplay_wait = \"soon\"\n"), "sessions.play_wait"),
    ] {
        server.replace_config(&wrong);
        let problems = refused(&server);
        assert!(problems.contains(told), "{problems}");
        refusals += 1;
        calm.beat();
    }
    std::fs::remove_file(server.config_path()).unwrap();
    assert!(refused(&server).contains("cannot be read"));
    let (code, _, errors) = sluicegate(&server, &["reload"]);
    assert_eq!(code, Some(78), "{errors}");
    assert!(errors.contains("cannot be read") && errors.contains("nothing was changed"), "{errors}");
    server.signal(libc::SIGHUP);
    refusals += 3;
    eventually("each is counted", || server.metrics().sum("sluicegate_config_reloads_total", "refused") == refusals);
    assert_eq!(server.metrics().sum("sluicegate_config_generation", ""), 1);
    assert!(server.log().lines().filter(|line| line.contains("ev=reload_refused")).count() as u64 >= refusals);
    // What the wrong files said beside is not in force.
    Raw::play(server.rtmp, "live", "calm").start();
    calm.assert_undisturbed(&server);

    server.replace_config(&whole);
    let (code, told, errors) = sluicegate(&server, &["reload"]);
    assert_eq!(
        (code, told.contains("changed admission.play\npending a restart admission.bans_max\n")),
        (Some(0), true),
        "{told}{errors}"
    );
    assert_eq!(server.node()["config_generation"], 2);
}

#[test]
fn cf_13_what_needs_a_restart_is_pending_and_not_half_applied() {
    let server = Server::start("[shard]\ncount = 1\n[rtmp]\nout_chunk_size = 65536\n[stream]\nresume_window = \"5s\"");
    let mut calm = Calm::start(&server, "calm");
    let other = crate::support::free_port();
    edit(&server, &server.rtmp.to_string(), &other.to_string());
    edit(&server, "count = 1", "count = 2\nring_depth = 1024");
    edit(&server, "out_chunk_size = 65536", "out_chunk_size = 4096");
    edit(&server, "resume_window = \"5s\"", "resume_window = \"500ms\"");
    let pending = json!(["rtmp.out_chunk_size", "shard.count", "shard.ring_depth", "shard.rtmp_listen"]);
    for generation in [2, 3] {
        let answer = reload(&server);
        assert_eq!((&answer["pending"], &answer["generation"]), (&pending, &generation.into()), "{answer:#}");
        // Told as a change once, and as pending until the restart.
        let changed = if generation == 2 { json!(["stream.resume_window"]) } else { json!([]) };
        assert_eq!(answer["changed"], changed);
    }
    assert_eq!(server.node()["shards"].as_array().map(Vec::len), Some(1));
    assert!(std::net::TcpStream::connect(other).is_err(), "it listens where it was told only now");
    // Players of before and after read the same packaged bytes.
    let mut player = Raw::play(server.rtmp, "live", "calm").start();
    calm.beat();
    assert!(player.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == 9)));
    calm.assert_undisturbed(&server);
    // What was taken holds for the stream that is here, too.
    drop(calm);
    assert!(player.pump_until(Duration::from_secs(4), |it| it.ended), "the stream outlives the new resume window");
}

#[test]
fn cf_11_reloads_take_turns_and_the_last_file_wins() {
    let server = Server::start("[shard]\ncount = 2\n[sessions]\nplay_wait = \"20s\"\nfirst_keyframe = \"20s\"");
    let mut calm = Calm::start(&server, "calm");
    let one = file(&server);
    let other = one
        .replace("play_wait = \"20s\"", "play_wait = \"30s\"")
        .replace("first_keyframe = \"20s\"", "first_keyframe = \"30s\"");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The file changes all the time, whole each time.
        scope.spawn(|| {
            for text in [&one, &other].into_iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                server.replace_config(text);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            for _ in 0..100 {
                server.signal(libc::SIGHUP);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let askers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let changed = reload(&server)["changed"].clone();
                        // Both keys or none: nobody sees a part of a file.
                        let both = json!(["sessions.first_keyframe", "sessions.play_wait"]);
                        assert!(changed == both || changed == json!([]), "{changed}");
                    }
                })
            })
            .collect();
        while !askers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            calm.beat();
        }
        stop.store(true, Ordering::Relaxed);
    });
    server.replace_config(&other);
    reload(&server);
    assert_eq!(reload(&server)["changed"], json!([]), "the last file is in force");
    // Each reload made one generation, and the log tells them in turn.
    eventually("the log has caught up", || {
        server.log().matches("ev=reloaded").count() as u64
            == server.metrics().sum("sluicegate_config_reloads_total", "applied")
    });
    let log = server.log();
    let told: Vec<u64> = log
        .lines()
        .filter(|line| line.contains("ev=reloaded"))
        .map(|line| line.split(" generation=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(told.len() >= 82, "{} reloads", told.len());
    assert!(told.iter().copied().eq(2..2 + told.len() as u64), "{told:?}");
    assert_eq!(server.metrics().sum("sluicegate_config_reloads_total", "refused"), 0);
    calm.assert_undisturbed(&server);
}

#[test]
fn a_drain_by_command_ends_the_server_in_good_order() {
    let mut server = Server::start("[shard]\ndrain_timeout = \"60s\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "drain").start();
    publisher.send_picture(0);
    let mut player = Raw::play(server.rtmp, "live", "drain").start();
    server.wait_for_sessions("", 2);
    let (code, told, errors) = sluicegate(&server, &["drain", "--over", "1s"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.contains("over 1s"), "{told}");
    player.drain();
    publisher.drain();
    assert!(player.statuses.iter().any(|code| code == "NetConnection.Connect.Closed"), "{:?}", player.statuses);
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log());
    let log = server.log();
    let drained = |what: &str| log.lines().filter(|line| line.contains(what) && line.contains("reason=drain")).count();
    assert_eq!((drained("session_closed"), drained("stream_offline")), (2, 1), "{log}");
}

#[test]
fn a_drain_by_signal_obeys_the_time_of_the_last_reload() {
    let mut server = Server::start("[shard]\ndrain_timeout = \"10m\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "drain").start();
    publisher.send_picture(0);
    edit(&server, "drain_timeout = \"10m\"", "drain_timeout = \"1s\"");
    assert_eq!(reload(&server)["changed"], json!(["shard.drain_timeout"]));
    server.signal(libc::SIGTERM);
    publisher.drain();
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log());
}
