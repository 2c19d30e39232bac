//! A publisher and a player who do nothing wrong: what others do must not reach them.

use std::time::Duration;

use super::raw::Raw;
use super::{PATIENCE, Server, eventually};

/// One stream with one viewer.
pub struct Calm {
    publisher: Raw,
    player: Raw,
    published: u64,
    session: String,
}

impl Calm {
    /// Begins the stream `live/<name>`.
    pub fn start(server: &Server, name: &str) -> Self {
        let mut publisher = Raw::publish(server.rtmp, "live", name).start();
        let player = Raw::play(server.rtmp, "live", name).start();
        publisher.send_picture(0);
        let sessions = server.wait_for_sessions(&format!("kind=play&remote={}", player.local()), 1);
        let session = sessions[0]["id"].as_str().unwrap().to_owned();
        Self { publisher, player, published: 1, session }
    }

    /// Publishes one more picture and lets the viewer read for a moment.
    pub fn beat(&mut self) {
        self.publisher.send_picture(self.published);
        self.published += 1;
        self.player.pump_until(Duration::from_millis(1), |_| false);
    }

    /// The numbers of the pictures that the viewer got, in order.
    pub fn pictures(&self) -> Vec<u64> {
        let of_picture = |message: &&sluicegate::proto::rtmp::chunk::RawMessage| {
            message.type_id == 9 && message.payload.len() == 1_000
        };
        let number = |payload: &[u8]| u64::from_be_bytes(payload[5..13].try_into().unwrap());
        self.player.messages.iter().filter(of_picture).map(|message| number(&message.payload)).collect()
    }

    /// Every picture that was published has come or comes, in order and once, to the same session as at the start.
    pub fn assert_undisturbed(&mut self, server: &Server) {
        self.beat();
        let all = self.published;
        let last = |it: &Raw| {
            it.messages.iter().filter(|message| message.type_id == 8 && message.payload.len() == 200).count()
        };
        assert!(self.player.pump_until(PATIENCE, |it| last(it) as u64 >= all), "{} of {all}", last(&self.player));
        assert_eq!(self.pictures(), (0..all).collect::<Vec<_>>(), "pictures are missing, doubled or out of order");
        let session = || server.get(&format!("/v1/sessions/{}", self.session)).1;
        eventually("the viewer's session runs", || session()["state"] == "running");
        assert_eq!(session()["dropped_frames"], 0);
        let metrics = server.metrics();
        assert_eq!(metrics.sum("sluicegate_internal_errors_total", ""), 0);
    }
}
