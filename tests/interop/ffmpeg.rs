//! ffmpeg publishes, ffmpeg and ffprobe play.

use std::process::Command;

use crate::support::peers::{self, Running};
use crate::support::{Server, eventually, scratch};

/// A server whose streams end soon after their publisher.
pub fn server() -> Server {
    Server::start("[shard]\ncount = 1\n[stream]\nresume_window = \"1s\"")
}

/// Publishes `clip` with one ffmpeg while another plays, and returns the hashes of what the player got.
pub fn relay(server: &Server, ffmpeg: fn() -> Command, clip: &std::path::Path, stream: &str) -> Vec<Vec<String>> {
    let (_dir, dir) = scratch();
    let hashes = dir.join("hashes");
    let url = server.url(&format!("live/{stream}"));
    let mut player = Running::start(
        ffmpeg()
            .args(["-rw_timeout", "15000000", "-i", &url])
            .args(["-map", "0:v?", "-map", "0:a?", "-c", "copy", "-f", "framehash", "-hash", "md5"])
            .arg(&hashes),
    );
    server.wait_for_sessions(&format!("kind=play&stream={stream}"), 1);
    let mut publisher = Running::start(ffmpeg().args(["-re", "-i"]).arg(clip).args(["-c", "copy", "-f", "flv", &url]));
    assert!(publisher.wait(), "the publisher failed: {}", publisher.errors());
    assert!(player.wait(), "the player failed: {}", player.errors());
    peers::packet_hashes(&std::fs::read_to_string(hashes).unwrap())
}

#[test]
fn ffmpeg_publishes_and_a_player_gets_identical_packets() {
    let server = server();
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 3);
    let expected = peers::file_hashes(peers::ffmpeg(), &clip);
    assert_eq!(expected.len(), 2, "the clip has a video and an audio track");
    assert!(expected.iter().all(|track| track.len() > 70), "{:?}", expected.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(relay(&server, peers::ffmpeg, &clip, "identical"), expected);
}

#[test]
fn ffprobe_reads_codecs_and_size_from_the_live_stream() {
    let server = server();
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 3);
    let url = server.url("live/probe");
    let _publisher = peers::publish_for_ever(peers::ffmpeg(), &clip, &url);
    server.wait_for_sessions("kind=publish&stream=probe&state=running", 1);
    let output = peers::run(
        Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-rw_timeout",
                "10000000",
                "-show_entries",
                "stream=codec_name,width,height",
                "-of",
                "csv=p=0",
            ])
            .arg(&url),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("h264,320,180"), "{text}");
    assert!(text.contains("aac"), "{text}");
    // The same from the API, without asking any player.
    eventually("the API knows the stream", || {
        let (_, body) = server.get("/v1/streams");
        let stream = &body["streams"][0];
        stream["video"]["codec"] == "avc1" && stream["video"]["width"] == 320 && stream["audio"]["codec"] == "mp4a"
    });
}

#[test]
fn who_comes_late_sees_the_two_tracks_and_nothing_else() {
    let server = server();
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 3);
    let url = server.url("live/late");
    let _publisher = peers::publish_for_ever(peers::ffmpeg(), &clip, &url);
    // Two seconds into the stream: what a newcomer gets first is not from its beginning.
    eventually("two seconds were published", || {
        let (_, body) = server.get("/v1/sessions?kind=publish&stream=late&state=running");
        body["sessions"][0]["frames"]["rx"].as_u64().is_some_and(|frames| frames > 140)
    });
    for ffmpeg in [peers::ffmpeg, peers::new_ffmpeg] {
        let recording = dir.join("recording.mp4");
        // Every stream that the player sees goes into the file, which cannot hold one of data.
        let mut player = Running::start(
            ffmpeg()
                .args(["-y", "-rw_timeout", "10000000", "-i", &url, "-t", "1", "-map", "0", "-c", "copy"])
                .arg(&recording),
        );
        assert!(player.wait(), "the player failed: {}", player.errors());
        let output = peers::run(
            Command::new("ffprobe")
                .args(["-v", "error", "-show_entries", "stream=codec_type", "-of", "csv=p=0"])
                .arg(&recording),
        );
        let mut kinds: Vec<_> = std::str::from_utf8(&output.stdout).unwrap().split_whitespace().collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["audio", "video"]);
    }
}

#[test]
fn a_refused_publisher_reads_why() {
    let server = Server::start("[admission]\npublish = \"deny\"");
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 1);
    let mut publisher = Running::start(peers::ffmpeg().arg("-i").arg(&clip).args([
        "-c",
        "copy",
        "-f",
        "flv",
        &server.url("live/denied"),
    ]));
    assert!(!publisher.wait(), "the publish was accepted");
    let errors = publisher.errors();
    assert!(errors.contains("You are not allowed to do this."), "{errors}");
    assert!(server.sessions("kind=publish").is_empty());
    let (_, summary) = server.get("/v1/summary");
    assert!(summary.to_string().contains("auth_denied"), "{summary:#}");
}

#[test]
fn fa_08_a_killed_publisher_is_closed_and_a_silent_one_times_out() {
    let server = Server::start("[rtmp]\nmedia_timeout = \"1s\"\n[stream]\nresume_window = \"1s\"");
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 2);
    let publish =
        |stream: &str| peers::publish_for_ever(peers::ffmpeg(), &clip, &server.url(&format!("live/{stream}")));
    let id = |stream: &str| {
        server.wait_for_sessions(&format!("kind=publish&stream={stream}&state=running"), 1)[0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };

    // SIGKILL: the kernel ends the connection in the program's name.
    let killed = publish("killed");
    let killed_id = id("killed");
    killed.signal(libc::SIGKILL);
    let session = server.wait_for_end(&killed_id);
    assert!(["client_done", "client_reset"].contains(&session["reason"].as_str().unwrap()), "{session:#}");
    assert!(session["bytes"]["rx"].as_u64().unwrap() > 10_000, "{session:#}");

    // SIGSTOP: the connection stays open and says nothing, as one behind a dead link does.
    let stopped = publish("stopped");
    let stopped_id = id("stopped");
    stopped.signal(libc::SIGSTOP);
    let session = server.wait_for_end(&stopped_id);
    assert_eq!(session["reason"], "media_timeout", "{session:#}");
}
