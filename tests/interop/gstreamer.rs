//! GStreamer's rtmp2 elements publish and play.

use std::process::Command;

use crate::ffmpeg::server;
use crate::support::peers::{self, Running};
use crate::support::scratch;

#[test]
fn gstreamer_publishes_and_plays() {
    let server = server();
    let (_dir, dir) = scratch();
    let (clip, record) = (dir.join("clip.flv"), dir.join("record.flv"));
    peers::make_clip(&clip, 3);
    let url = server.url("live/gst");
    let gst = |pipeline: &str| {
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-q", "-e"]).args(pipeline.split_whitespace());
        command
    };
    let mut player =
        Running::start(&mut gst(&format!("rtmp2src location={url} ! filesink location={}", record.display())));
    server.wait_for_sessions("kind=play&stream=gst", 1);
    let mut publisher = Running::start(&mut gst(&format!(
        "filesrc location={} ! flvdemux name=d  flvmux name=m streamable=true ! rtmp2sink location={url} \
         d.video ! queue ! h264parse ! m.  d.audio ! queue ! aacparse ! m.",
        clip.display()
    )));
    assert!(publisher.wait(), "{}", publisher.errors());
    let published = server.wait_for_sessions("kind=publish", 0);
    assert!(published.is_empty());
    assert!(player.wait(), "{}", player.errors());
    let hashes = peers::file_hashes(peers::ffmpeg(), &record);
    assert!(hashes.len() == 2 && hashes[0].len() >= 70, "{:?}", hashes.iter().map(Vec::len).collect::<Vec<_>>());
}
