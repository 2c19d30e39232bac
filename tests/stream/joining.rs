use sluicegate::media::Track;
use sluicegate::stream::{Settings, Subscriber};

use crate::support::Stage;

#[test]
fn a_newcomer_begins_with_the_newest_keyframe() {
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Video, 30);
    stage.group(10, 1_000);
    let second = stage.number;
    stage.group(5, 1_000);
    let mut player = stage.join();
    player.drain(&stage);
    assert_eq!(player.numbers(), (second..stage.number).collect::<Vec<_>>());
    assert!(player.received()[0].keyframe);
    assert_eq!(player.written.frames, 10);
    assert_eq!(player.written.media_bytes, 5 * 1_100);
    assert_eq!((player.jumps, player.headers_sent), (0, 0));

    stage.video(1_000);
    player.drain(&stage);
    assert_eq!(player.received().len(), 11);
}

#[test]
fn a_newcomer_without_a_keyframe_waits_for_one() {
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Video, 30);
    stage.video(100);
    stage.audio(100);
    let mut player = stage.join();
    assert!(player.cursor.is_waiting());
    assert_eq!(player.drain(&stage), 0);
    let key = stage.keyframe(100).timestamp_ms;
    player.drain(&stage);
    assert_eq!(player.received()[0].timestamp_ms, key);
    assert_eq!(player.received().len(), 1);
}

#[test]
fn a_player_that_waits_for_a_publisher_gets_everything_from_its_first_frame() {
    let mut stage = Stage::new(Settings::default());
    let mut player = stage.join();
    player.drain(&stage);
    stage.header(Track::Video, 30);
    stage.header(Track::Audio, 10);
    stage.group(5, 500);
    player.drain(&stage);
    assert_eq!(player.numbers(), (0..12).collect::<Vec<_>>());
}

#[test]
fn headers_that_came_while_waiting_are_announced_before_the_keyframe() {
    let mut stage = Stage::new(Settings::default());
    stage.video(100);
    let mut player = stage.join();
    stage.header(Track::Video, 30);
    stage.video(100);
    player.drain(&stage);
    assert_eq!(player.total, 0);
    stage.keyframe(100);
    player.drain(&stage);
    assert_eq!(player.headers_sent, 1);
    assert_eq!((player.jumps, player.dropped), (0, 0), "nothing was promised, nothing was dropped");
    assert_eq!(player.received().len(), 1);
}

#[test]
fn md_07_sound_alone_begins_with_its_last_second() {
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Audio, 10);
    for _ in 0..200 {
        stage.audio(50);
        stage.pass(20);
    }
    let mut player = stage.join();
    player.drain(&stage);
    assert_eq!(player.received().len(), 50);
    stage.audio(50);
    player.drain(&stage);
    assert_eq!(player.received().len(), 51);
}

#[test]
fn md_07_video_alone_plays() {
    let mut stage = Stage::new(Settings::default());
    stage.keyframe(100);
    let mut player = stage.join();
    for _ in 0..10 {
        stage.pass(40);
        stage.video(100);
        player.drain(&stage);
    }
    assert_eq!(player.received().len(), 11);
    let sample = stage.live.sample(stage.now);
    assert_eq!(sample.audio_bps, 0);
    assert!((sample.frame_rate - 25.0).abs() < 0.1, "{}", sample.frame_rate);
}

#[test]
fn pictures_that_stop_do_not_keep_newcomers_waiting_for_ever() {
    let mut stage = Stage::new(Settings::default());
    stage.group(5, 100);
    for _ in 0..1_500 {
        stage.audio(50);
        stage.pass(20);
    }
    let mut player = stage.join();
    player.drain(&stage);
    assert!(!player.received().is_empty());
    assert!(player.received().iter().all(|frame| frame.track == Track::Audio as u8));
}

#[test]
fn a_newcomer_may_lag_as_far_as_it_did_when_it_began() {
    let settings = Settings { queue_bytes: 1 << 20, gop_bytes: 16 << 20, ..Settings::default() };
    let mut stage = Stage::new(settings);
    stage.group(80, 50_000); // 4 MB in 3.2 s
    let mut player = stage.join();
    // It takes a little more than comes in, and so catches up slowly, four times as far behind as others may be.
    for _ in 0..40 {
        stage.video(50_000);
        stage.pass(40);
        player.write(&stage, 60_000, usize::MAX);
    }
    assert_eq!(player.jumps, 0);
    // The group it began in is followed by another: for a while it still gets all of it.
    stage.group(40, 1_000);
    player.drain(&stage);
    assert_eq!(player.jumps, 0);
    let received = player.received();
    assert!(received.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));

    // What it has caught up is not given back.
    stage.keyframe(1_000);
    player.drain(&stage);
    for _ in 0..30 {
        stage.video(50_000);
        player.write(&stage, 1, 1);
    }
    assert!(player.cursor.offset() < stage.live.log().end());
    stage.keyframe(1_000);
    player.drain(&stage);
    assert_eq!(player.jumps, 1);
}

#[test]
fn a_changed_configuration_keeps_newcomers_out_until_the_next_keyframe() {
    let mut stage = Stage::new(Settings::default());
    stage.header(Track::Video, 30);
    stage.group(5, 100);
    let mut running = stage.join();
    running.drain(&stage);
    let from = stage.number;
    stage.header(Track::Video, 40);
    let mut player = stage.join();
    assert!(player.cursor.is_waiting());
    stage.group(2, 100);
    player.drain(&stage);
    assert_eq!(player.numbers()[0], from + 1);
    assert_eq!(player.headers_sent, 0, "it had the new ones from the start");
    running.drain(&stage);
    assert_eq!(running.numbers().last(), player.numbers().last());
    assert!(running.received().iter().any(|frame| frame.number == from && frame.sequence_header));
}

#[test]
fn subscribers_come_and_go() {
    let mut stage = Stage::new(Settings::default());
    for n in 0..100 {
        stage.live.subscribe(Subscriber(n));
        stage.live.subscribe(Subscriber(n));
    }
    assert_eq!(stage.live.subscribers().len(), 100);
    for n in (0..100).step_by(2) {
        stage.live.unsubscribe(Subscriber(n));
        stage.live.unsubscribe(Subscriber(n));
    }
    let mut left: Vec<usize> = stage.live.subscribers().iter().map(|who| who.0).collect();
    left.sort_unstable();
    assert_eq!(left, (1..100).step_by(2).collect::<Vec<_>>());
    assert_eq!(stage.live.sample(stage.now).players, 50);
}

#[test]
fn load_yellow_halves_the_cache_of_a_stream_and_leaves_its_players_alone() {
    let settings = Settings { gop_bytes: 2 << 20, queue_bytes: 256 << 10, ..Settings::default() };
    let mut stage = Stage::new(settings.clone());
    // A group of pictures of 1.5 MiB, and somebody who watches it.
    stage.group(30, 50_000);
    let mut player = stage.join();
    player.drain(&stage);
    assert!(!stage.join().cursor.is_waiting());
    let bound = (1 << 20) + (256 << 10) + (64 << 10);
    assert!(stage.live.log().memory() > bound);

    stage.live.set_cache(&Settings { gop_bytes: 1 << 20, ..settings.clone() });
    stage.video(50_000);
    assert!(stage.join().cursor.is_waiting(), "a group beyond the half is still held for newcomers");
    assert!(stage.live.log().memory() <= bound, "{}", stage.live.log().memory());
    player.drain(&stage);
    assert_eq!((player.received().len(), player.dropped), (61, 0));

    // A group that fits is kept as before, and the whole is allowed again.
    stage.group(10, 50_000);
    assert!(!stage.join().cursor.is_waiting());
    stage.live.set_cache(&settings);
    stage.group(30, 50_000);
    assert!(!stage.join().cursor.is_waiting());
}
