use std::time::Duration;

use sluicegate::media::{FrameFlags, Track};
use sluicegate::stdx::ids::SplitMix;
use sluicegate::stream::Settings;

use crate::support::Stage;

fn metadata() -> FrameFlags {
    FrameFlags { metadata: true, ..FrameFlags::default() }
}

#[test]
fn md_04_sequence_headers_by_the_thousand() {
    let mut stage = Stage::new(Settings::default());
    for n in 0..5_000_usize {
        stage.header(Track::Video, 40 + n % 2);
        stage.pass(1);
        assert!(stage.live.log().memory() <= stage.bound());
    }
    assert_eq!(stage.live.headers().video.len(), 1);
    assert!(stage.live.header_changes(stage.now) > 10, "the owner can tell");
    stage.pass(11_000);
    assert_eq!(stage.live.header_changes(stage.now), 0);
}

#[test]
fn md_04_the_same_sequence_header_again_is_no_change() {
    let mut stage = Stage::new(Settings::default());
    let first = stage.header(Track::Video, 40);
    let generation = stage.live.headers().generation;
    stage.group(2, 100);
    for _ in 0..1_000 {
        stage.live.push(stage.now, first.clone(), &crate::support::Tagged);
    }
    assert_eq!(stage.live.headers().generation, generation);
    assert_eq!(stage.live.header_changes(stage.now), 0);
    assert!(!stage.join().cursor.is_waiting());
}

#[test]
fn md_04_an_oversized_sequence_header_is_not_kept() {
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Video, 64 << 10);
    assert_eq!(stage.live.headers().video.len(), 1);
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Video, (64 << 10) + 1);
    assert!(stage.live.headers().video.is_empty());
}

#[test]
fn md_04_headers_of_every_track_number_are_bounded() {
    let mut stage = Stage::new(Settings::default());
    for track_id in 0..=255 {
        let mut frame = stage.header(Track::Audio, 64 << 10);
        frame.info.track_id = track_id;
        stage.live.push(stage.now, frame, &crate::support::Tagged);
    }
    assert!(stage.live.headers().audio.len() <= 32);
}

#[test]
fn md_05_metadata_floods_are_thinned() {
    let mut stage = Stage::new(Settings::default());
    stage.keyframe(100);
    let mut player = stage.join();
    for n in 0..300_usize {
        stage.push(Track::Data, metadata(), 1_000 + n);
        stage.pass(10);
        player.drain(&stage);
    }
    let passed = player.received().iter().filter(|frame| frame.track == Track::Data as u8).count();
    assert!((10..=40).contains(&passed), "{passed}");
    let kept = stage.live.headers().metadata.clone().unwrap();
    assert_eq!(kept.payload.len(), 1_299, "the newest is kept");
    stage.push(Track::Data, metadata(), 256 << 10);
    assert_eq!(stage.live.headers().metadata.as_ref(), Some(&kept), "a huge one is not");
}

#[test]
fn md_06_no_keyframe_ever() {
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Video, 40);
    let mut player = stage.join();
    for _ in 0..60 * 25 {
        stage.video(20_000);
        stage.pass(40);
        assert_eq!(player.drain(&stage), 0, "a newcomer waits");
        assert!(stage.live.log().memory() <= stage.bound());
    }
    // No more is held than those may lag who already watch.
    assert!(stage.live.log().cached() <= stage.settings.queue_bytes + 21_000);
    assert!(player.cursor.is_waiting());
}

#[test]
fn md_06_a_group_of_ten_minutes_leaves_the_cache() {
    let mut stage = Stage::new(Settings::default());
    stage.keyframe(1_000);
    let mut player = stage.join();
    for n in 0..10 * 60 * 5_u64 {
        stage.video(1_000);
        stage.pass(200);
        player.drain(&stage);
        let age = (n + 1) * 200;
        let holds = !stage.join().cursor.is_waiting();
        assert_eq!(holds, age <= 20_200, "after {age} ms");
    }
    assert_eq!(player.received().len(), 3_001, "who watches goes on watching");
    stage.keyframe(1_000);
    assert!(!stage.join().cursor.is_waiting());
}

#[test]
fn md_06_a_group_larger_than_the_cache_leaves_it() {
    let mut stage = Stage::new(Settings::default());
    stage.keyframe(1_000_000);
    for _ in 0..14 {
        stage.video(1_000_000);
    }
    assert!(!stage.join().cursor.is_waiting());
    stage.video(2_000_000);
    assert!(stage.join().cursor.is_waiting());
    assert!(stage.live.log().cached() <= stage.settings.queue_bytes + 2_000_100);
}

#[test]
fn md_06_nothing_but_keyframes_of_eight_mebibytes() {
    let mut stage = Stage::new(Settings::default());
    let mut player = stage.join();
    for _ in 0..8 {
        stage.keyframe(8 << 20);
        stage.pass(40);
        player.drain(&stage);
        assert!(stage.live.log().memory() <= stage.bound(), "{}", stage.live.log().memory());
    }
    assert_eq!(player.written.frames, 8);
    assert_eq!(player.jumps, 0);
}

#[test]
fn a_frame_larger_than_the_window_is_left_out_and_counted() {
    let settings = Settings { gop_bytes: 1 << 20, queue_bytes: 1 << 20, ..Settings::default() };
    let mut stage = Stage::new(settings);
    stage.keyframe(1_000);
    stage.video(3 << 20);
    stage.video(1_000);
    assert_eq!(stage.live.log().oversized(), 1);
    assert!(stage.join().cursor.is_waiting(), "what follows refers to what is missing");
    assert!(stage.live.log().memory() <= stage.bound());
}

#[test]
fn memory_is_bounded_whatever_the_sizes() {
    let settings = Settings {
        gop_bytes: 1 << 20,
        queue_bytes: 512 << 10,
        queue_time: Duration::from_secs(3_600),
        gop_duration: Duration::from_secs(3_600),
        ..Settings::default()
    };
    for seed in 0..4 {
        let mut random = SplitMix::new(seed);
        let mut stage = Stage::new(settings.clone());
        let mut players: Vec<_> = (0..20).map(|_| stage.join()).collect();
        for n in 0..3_000_u64 {
            // A flood of nothing, then large ones, then anything.
            let len = match n / 1_000 {
                0 => 8,
                1 => random.below(300_000),
                _ => 1 << random.below(20),
            };
            match random.below(if seed % 2 == 0 { 200 } else { 3 }) {
                0 => stage.keyframe(len as usize),
                1 => stage.audio(len as usize),
                _ => stage.video(len as usize),
            };
            stage.pass(random.below(3));
            let memory = stage.live.log().memory();
            assert!(memory <= stage.bound(), "seed {seed}, frame {n}: {memory}");
            let player = random.below(20) as usize;
            players[player].write(&stage, 1 + random.below(5_000) as usize, 1_000);
            players[player].forget();
            if players[player].gone {
                players[player] = stage.join();
            }
        }
        assert!(stage.live.log().cached() > 0);
    }
}
