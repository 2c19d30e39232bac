//! rtmpdump records.

use std::process::Command;

use crate::ffmpeg::server;
use crate::support::peers::{self, Running};
use crate::support::scratch;

#[test]
fn rtmpdump_records_every_packet() {
    let server = server();
    let (_dir, dir) = scratch();
    let (clip, record) = (dir.join("clip.flv"), dir.join("record.flv"));
    peers::make_clip(&clip, 3);
    let url = server.url("live/record");
    let mut player = Running::start(
        Command::new("rtmpdump").args(["--quiet", "--live", "--timeout", "15", "-r", &url, "-o"]).arg(&record),
    );
    let playing = server.wait_for_sessions("kind=play&stream=record", 1);
    let mut publisher =
        Running::start(peers::ffmpeg().args(["-re", "-i"]).arg(&clip).args(["-c", "copy", "-f", "flv", &url]));
    assert!(publisher.wait(), "{}", publisher.errors());
    player.wait();
    assert_eq!(peers::file_hashes(peers::ffmpeg(), &record), peers::file_hashes(peers::ffmpeg(), &clip));
    let session = server.wait_for_end(playing[0]["id"].as_str().unwrap());
    assert_eq!(session["reason"], "stream_ended", "{session:#}");
    // Every media body of the record went through this session's books.
    let recorded = std::fs::metadata(&record).unwrap().len();
    assert!(session["bytes"]["tx"].as_u64().unwrap() > recorded * 9 / 10, "{session:#} for {recorded} bytes recorded");
}
