//! Whatever is published and however a player reads: it receives whole frames in order, and after a gap
//! its pictures begin with a keyframe.

use std::time::Duration;

use proptest::prelude::*;
use sluicegate::media::Track;
use sluicegate::stream::Settings;

use crate::support::{Player, Received, Stage};

#[derive(Clone, Debug)]
enum Step {
    Keyframe(usize),
    Video(usize),
    Audio(usize),
    Header(usize),
    Pass(u64),
    Write { budget: usize, call: usize },
    Flap,
    Pause(bool),
    Tracks(bool, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![4 => 8..2_000_usize, 2 => 2_000..40_000_usize, 1 => 40_000..200_000_usize];
    prop_oneof![
        2 => len.clone().prop_map(Step::Keyframe),
        10 => len.clone().prop_map(Step::Video),
        6 => (8..500_usize).prop_map(Step::Audio),
        1 => (8..60_usize).prop_map(Step::Header),
        8 => (0..200_u64).prop_map(Step::Pass),
        12 => (1..60_000_usize, 1..30_usize).prop_map(|(budget, pieces)| Step::Write { budget, call: budget / pieces + 1 }),
        1 => Just(Step::Flap),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => step(),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(audio, video)| Step::Tracks(audio, video)),
    ]
}

fn run(steps: &[Step], settings: Settings) -> (Stage, Player) {
    let mut stage = Stage::new(settings);
    let mut player = stage.join();
    for step in steps {
        match *step {
            Step::Keyframe(len) => drop(stage.keyframe(len)),
            Step::Video(len) => drop(stage.video(len)),
            Step::Audio(len) => drop(stage.audio(len)),
            Step::Header(len) => drop(stage.header(Track::Video, len)),
            Step::Pass(ms) => stage.pass(ms),
            Step::Write { budget, call } => drop(player.write(&stage, budget, call)),
            Step::Flap => stage.live.publisher_joined(stage.now),
            Step::Pause(is_paused) => player.cursor.pause(is_paused),
            Step::Tracks(audio, video) => player.cursor.set_tracks(audio, video),
        }
        assert!(stage.live.log().memory() <= stage.bound());
    }
    (stage, player)
}

fn tight() -> Settings {
    Settings {
        gop_bytes: 300_000,
        queue_bytes: 256 << 10,
        queue_time: Duration::from_millis(600),
        gop_duration: Duration::from_millis(1_500),
        overflows_max: 50,
        ..Settings::default()
    }
}

/// In order, and no picture before a keyframe wherever one is missing.
fn check(received: &[Received], is_every_track: bool) {
    assert!(received.windows(2).all(|pair| pair[0].number < pair[1].number), "out of order");
    if !is_every_track {
        return;
    }
    let mut expected = None;
    let mut awaits_key = true;
    for frame in received {
        if expected.is_some_and(|number| number != frame.number) {
            awaits_key = true;
        }
        expected = Some(frame.number + 1);
        if frame.track == Track::Video as u8 && !frame.sequence_header {
            awaits_key &= !frame.keyframe;
            assert!(!awaits_key, "a picture that refers to what is missing: {frame:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn receives_whole_frames_in_order_and_keyframes_after_gaps(steps in prop::collection::vec(step(), 1..300)) {
        let (stage, mut player) = run(&steps, tight());
        player.drain(&stage);
        let received = player.received();
        prop_assert_eq!(player.written.frames as usize, received.len());
        prop_assert_eq!(player.written.media_bytes as usize, received.iter().map(|frame| frame.len).sum::<usize>());
        check(received, true);
        if !player.gone && player.jumps == 0 && player.cursor.offset() == stage.live.log().end() {
            prop_assert_eq!(player.dropped, 0);
        }
    }

    #[test]
    fn receives_whole_frames_in_order_with_pauses_and_masks(steps in prop::collection::vec(any_step(), 1..300)) {
        let (stage, mut player) = run(&steps, tight());
        player.cursor.pause(false);
        player.drain(&stage);
        check(player.received(), false);
        prop_assert_eq!(player.written.frames as usize, player.received().len());
    }

    #[test]
    fn loses_nothing_within_the_window(steps in prop::collection::vec(step(), 1..100)) {
        // A player that always takes everything, in whatever pieces.
        let mut stage = Stage::new(Settings::default());
        stage.keyframe(10);
        let mut player = stage.join();
        for step in &steps {
            match *step {
                Step::Keyframe(len) => drop(stage.keyframe(len)),
                Step::Video(len) => drop(stage.video(len)),
                Step::Audio(len) => drop(stage.audio(len)),
                Step::Header(len) => drop(stage.header(Track::Audio, len)),
                Step::Write { call, .. } => drop(player.write(&stage, usize::MAX, call.max(50))),
                _ => {}
            }
        }
        player.drain(&stage);
        prop_assert_eq!(player.numbers(), (0..stage.number).collect::<Vec<_>>());
    }
}
