//! Enhanced RTMP: HEVC and AV1 pass untouched, published and played by an ffmpeg that speaks it.

use std::path::Path;

use crate::ffmpeg::{relay, server};
use crate::support::peers;
use crate::support::{eventually, scratch};

fn make_clip(path: &Path, codec: &[&str]) {
    peers::run(
        peers::new_ffmpeg()
            .args([
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=320x180:rate=25",
                "-f",
                "lavfi",
                "-i",
                "sine=frequency=440",
                "-t",
                "3",
            ])
            .args(codec)
            .args(["-pix_fmt", "yuv420p", "-g", "25", "-c:a", "aac", "-b:a", "64k", "-f", "flv"])
            .arg(path),
    );
}

fn passes_untouched(stream: &str, codec: &[&str], four_cc: &str) {
    let server = server();
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    make_clip(&clip, codec);
    let expected = peers::file_hashes(peers::new_ffmpeg(), &clip);
    assert!(expected.iter().all(|track| track.len() > 60));
    assert_eq!(relay(&server, peers::new_ffmpeg, &clip, stream), expected);

    // A newcomer starts at a keyframe, which the cache must have recognised, and the API names the codec.
    let url = server.url(&format!("live/{stream}-late"));
    let _publisher = peers::publish_for_ever(peers::new_ffmpeg(), &clip, &url);
    eventually("the API names the codec", || {
        let (_, body) = server.get("/v1/streams");
        body["streams"].as_array().is_some_and(|streams| {
            streams.iter().any(|it| it["video"]["codec"] == four_cc && it["video"]["gop_frames"].as_u64() > Some(0))
        })
    });
    let output = peers::run(peers::new_ffmpeg().args([
        "-rw_timeout",
        "10000000",
        "-i",
        &url,
        "-frames:v",
        "10",
        "-f",
        "null",
        "-",
    ]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !errors.contains("error") && !errors.contains("Could not find ref"),
        "the first picture was no keyframe: {errors}"
    );
}

#[test]
fn hevc_passes_untouched() {
    passes_untouched(
        "hevc",
        &["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:bframes=0"],
        "hvc1",
    );
}

#[test]
fn av1_passes_untouched() {
    passes_untouched("av1", &["-c:v", "libsvtav1", "-preset", "12"], "av01");
}
