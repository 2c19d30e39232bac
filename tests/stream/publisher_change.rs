use std::time::Duration;

use sluicegate::media::{Frame, FrameFlags, Track};
use sluicegate::stream::Settings;

use crate::support::{Stage, Tagged, payload};

#[test]
fn fa_06_a_flapping_publisher_keeps_its_viewers() {
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Video, 40);
    stage.group(5, 1_000);
    let mut player = stage.join();
    for n in 0..600 {
        stage.live.publisher_left(stage.now);
        assert!(!stage.live.is_published());
        assert_eq!(stage.live.resume_deadline(), Some(stage.now + Duration::from_secs(10)));
        stage.pass(500);
        stage.live.publisher_joined(stage.now);
        assert!(stage.live.is_published());
        assert_eq!(stage.live.resume_deadline(), None);
        stage.header(Track::Video, 40);
        // Each of them counts from zero.
        for m in 0..12_u64 {
            let flags = FrameFlags { keyframe: m == 0, ..FrameFlags::default() };
            let frame = Frame::new(Track::Video, m * 40, flags, payload(stage.number, 500));
            stage.number += 1;
            stage.live.push(stage.now, frame, &Tagged);
            stage.pass(40);
        }
        player.drain(&stage);
        assert!(stage.live.log().memory() <= stage.bound());
        assert_eq!(stage.live.headers().video.len(), 1, "round {n}");
    }
    let received = player.received();
    assert_eq!(player.jumps, 0);
    assert!(received.windows(2).all(|pair| pair[0].timestamp_ms <= pair[1].timestamp_ms));
    // About as much media time as has passed.
    let span = received.last().unwrap().timestamp_ms - received[0].timestamp_ms;
    assert!((500_000..700_000).contains(&span), "{span}");
    assert_eq!(stage.live.sample(stage.now).discontinuities, 600);
}

#[test]
fn fa_07_a_publisher_that_takes_over_is_a_discontinuity_and_no_more() {
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Video, 40);
    stage.group(20, 1_000);
    let mut player = stage.join();
    player.drain(&stage);
    let last = player.received().last().unwrap().timestamp_ms;
    let generation = stage.live.headers().generation;

    // The old connection is half open; the new one comes from another address with its own clock.
    stage.live.publisher_joined(stage.now);
    assert_ne!(stage.live.headers().generation, generation);
    assert!(stage.live.headers().video.is_empty());
    let mut newcomer = stage.join();
    stage.time_ms = 5_000_000;
    stage.header(Track::Video, 50);
    stage.video(10);
    stage.group(3, 1_000);
    player.drain(&stage);
    newcomer.drain(&stage);

    let received = player.received();
    let after = received.iter().find(|frame| frame.timestamp_ms > last).unwrap();
    assert!(after.timestamp_ms - last <= 200, "{} after {last}", after.timestamp_ms);
    assert_eq!(stage.live.sample(stage.now).discontinuities, 1);
    assert!(!newcomer.received().iter().any(|frame| frame.timestamp_ms <= last && !frame.sequence_header));
    let first_picture = newcomer.received().iter().find(|frame| frame.track == 1 && !frame.sequence_header);
    assert!(first_picture.unwrap().keyframe);
}

#[test]
fn rt_38_jumps_within_a_stream_are_counted_and_smooth() {
    let mut stage = Stage::new(Settings::default());
    stage.group(3, 100);
    let mut player = stage.join();
    for jump in [3_600_000_u64, 90_000_000, 0, u64::from(u32::MAX), 61_000] {
        stage.time_ms = jump;
        stage.group(3, 100);
        player.drain(&stage);
    }
    let received = player.received();
    for pair in received.windows(2) {
        assert!(pair[1].timestamp_ms.abs_diff(pair[0].timestamp_ms) <= 100, "{pair:?}");
    }
    assert_eq!(stage.live.sample(stage.now).discontinuities, 5);
}

#[test]
fn fa_05_lead_tells_a_publisher_that_runs_ahead() {
    let mut stage = Stage::new(Settings::default());
    for _ in 0..10 {
        stage.group(10, 100);
    }
    assert!(stage.live.lead(stage.now) <= Duration::from_millis(40));
    for _ in 0..100 {
        stage.time_ms += 100;
        stage.now += Duration::from_millis(10);
        stage.video(100);
    }
    let lead = stage.live.lead(stage.now);
    assert!((8_900..=9_100).contains(&lead.as_millis()), "{lead:?}");
}

#[test]
fn a_sample_shows_what_flows() {
    let mut stage = Stage::new(Settings::default());
    let config = [0x11, 0x90];
    let mut audio = Frame::new(
        Track::Audio,
        0,
        FrameFlags { sequence_header: true, ..FrameFlags::default() },
        vec![0xaf, 0, config[0], config[1]].into(),
    );
    audio.info.codec = Some(*b"mp4a");
    audio.info.config_offset = 2;
    stage.live.push(stage.now, audio, &Tagged);
    for _ in 0..4 {
        stage.group(50, 10_000);
    }
    let sample = stage.live.sample(stage.now);
    assert!(sample.published);
    assert_eq!((sample.audio_codec.as_str(), sample.sample_rate, sample.channels), ("mp4a", 48_000, 2));
    assert_eq!((sample.gop_ms, sample.gop_frames), (2_000, 50));
    assert!((1_900_000..2_100_000).contains(&sample.video_bps), "{}", sample.video_bps);
    assert!((19_000..21_000).contains(&sample.audio_bps), "{}", sample.audio_bps);
    assert_eq!(sample.frames, 401);
    assert!(sample.cache_bytes > 500_000);
}
