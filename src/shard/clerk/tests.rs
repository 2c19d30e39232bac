use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::admission::sources::Limits;
use crate::admission::{SessionTypes, Sources};
use crate::shard::{self, Plan, Post};
use crate::stdx::clock::WallAnchor;

/// How long anything here may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A shard that looks at its clock once, when it begins, and then not for an hour.
fn start_without_a_clock() -> Arc<Post> {
    let (post, mut sleepers) = Post::new(1).unwrap();
    let plan = Plan {
        id: crate::names::ShardId(0),
        cpu: None,
        tick: Duration::from_hours(1),
        settings: shard::Settings::default(),
        sessions: crate::adapter::Settings::default(),
        rtmp: Arc::default(),
        streams: crate::stream::Settings::default(),
        gate: Arc::default(),
        bans: Vec::new(),
        bans_max: 16,
        wall: WallAnchor::now(),
        seed: 1,
        rtmp_listeners: Vec::new(),
        sleeper: sleepers.remove(0),
        post: Arc::clone(&post),
        connections_max: 1,
        connections_open: Arc::new(AtomicUsize::new(0)),
        sources: Arc::new(Sources::new(Limits::default(), Instant::now())),
        types: Arc::new(SessionTypes::new(Instant::now())),
    };
    // Its thread ends with the process: who has no clock does not notice the end of a drain either.
    let _ = shard::start(plan).unwrap();
    post
}

#[test]
fn a_ring_wakes_a_shard_that_sleeps_and_no_clock_has_a_part_in_it() {
    let post = start_without_a_clock();
    let me = crate::names::ShardId(0);
    let mut reports = 0;
    for number in 0..400 {
        if number % 2 == 0 {
            // By now it sleeps in its ring. The others come as soon as it has answered, while it goes to sleep.
            std::thread::sleep(Duration::from_millis(2));
        }
        let order = OrderId(number);
        assert!(post.to_shard(me, ToShard::Ban { order, bans: Arc::new([]) }).is_ok(), "the box is full");
        let asked_at = Instant::now();
        loop {
            match post.take_for_control(me) {
                Some(ToControl::Done { order: done, .. }) => break assert_eq!(done, order),
                Some(ToControl::Report(_)) => reports += 1,
                Some(_) => {}
                None => {
                    assert!(asked_at.elapsed() < PATIENCE, "order {number} is not obeyed");
                    std::thread::yield_now();
                }
            }
        }
    }
    // Every tick of such a shard is an hour after the last, and reports.
    assert!(reports <= 1, "{reports} reports");
}
