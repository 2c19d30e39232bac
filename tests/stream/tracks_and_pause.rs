use sluicegate::media::Track;
use sluicegate::stream::Settings;

use crate::support::Stage;

#[test]
fn sound_alone_is_sent_to_who_wants_no_pictures() {
    let mut stage = Stage::new(Settings::default());
    stage.group(3, 1_000);
    let mut player = stage.join();
    player.cursor.set_tracks(true, false);
    stage.header(Track::Video, 30);
    stage.group(10, 1_000);
    player.write(&stage, usize::MAX, 333);
    let received = player.received();
    assert_eq!(received.iter().filter(|frame| frame.track == 0).count(), 13);
    assert!(received.iter().filter(|frame| frame.track == 1).all(|frame| frame.sequence_header));
    assert_eq!(player.written.frames, 14);
    assert_eq!(player.cursor.offset(), stage.live.log().end());
}

#[test]
fn pictures_wanted_again_begin_with_a_keyframe() {
    let mut stage = Stage::new(Settings::default());
    stage.group(3, 1_000);
    let mut player = stage.join();
    player.drain(&stage);
    player.cursor.set_tracks(true, false);
    stage.video(1_000);
    player.drain(&stage);
    player.cursor.set_tracks(true, true);
    stage.video(1_000);
    stage.audio(100);
    let next = stage.number;
    stage.group(2, 1_000);
    player.write(&stage, usize::MAX, 77);
    let tail: Vec<u64> = player.numbers().into_iter().filter(|number| *number >= 6).collect();
    assert_eq!(tail, [next - 1, next, next + 1, next + 2, next + 3]);
}

#[test]
fn a_frame_in_progress_is_finished_though_its_track_is_no_longer_wanted() {
    let mut stage = Stage::new(Settings::default());
    stage.group(1, 5_000);
    let mut player = stage.join();
    player.write(&stage, 1_000, 1_000);
    player.cursor.set_tracks(true, false);
    stage.group(2, 5_000);
    player.drain(&stage);
    assert_eq!(player.numbers(), [0, 1, 3, 5]);
}

#[test]
fn a_paused_player_goes_on_with_the_newest_keyframe() {
    let mut stage = Stage::new(Settings::default());
    stage.group(5, 1_000);
    let mut player = stage.join();
    player.write(&stage, 500, 500);
    player.cursor.pause(true);
    stage.group(200, 1_000);
    player.drain(&stage);
    assert_eq!(player.numbers(), [0], "the frame it was in the middle of is finished");
    let next = stage.number;
    stage.group(5, 1_000);
    assert_eq!(player.drain(&stage), 0);
    player.cursor.pause(false);
    player.drain(&stage);
    assert_eq!(player.numbers()[1..], (next..stage.number).collect::<Vec<_>>()[..]);
    assert_eq!((player.jumps, player.dropped), (0, 0), "what it did not want was not dropped");
}

#[test]
fn a_short_pause_within_a_group_loses_nothing_and_repeats_nothing() {
    let mut stage = Stage::new(Settings::default());
    stage.group(5, 1_000);
    let mut player = stage.join();
    player.drain(&stage);
    player.cursor.pause(true);
    for _ in 0..10 {
        stage.video(1_000);
        stage.pass(40);
    }
    assert_eq!(player.drain(&stage), 0);
    player.cursor.pause(false);
    player.drain(&stage);
    assert_eq!(player.numbers(), (0..20).collect::<Vec<_>>());
}
