//! What a shard obeys and may change while it runs.

use std::sync::Arc;

/// The settings of a running shard, as a reload gives them. What a shard cannot change (its listeners, its rings, the
/// chunk size that every player is told) is here as it was at the start; whoever makes these sees to that.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `[shard]`: at once.
    pub shard: crate::shard::Settings,
    /// `[sessions]`: at once.
    pub sessions: crate::adapter::Settings,
    /// `[rtmp]`: for connections accepted from now on.
    pub rtmp: Arc<crate::proto::rtmp::Settings>,
    /// `[stream]`: for streams that begin from now on, but for the resume window, which changes for all.
    pub streams: crate::stream::Settings,
    /// `[admission]`: for requests from now on, and for running sessions where it has changed.
    pub admission: crate::admission::Settings,
    /// What a shard knows of it by itself, compiled.
    pub gate: Arc<crate::admission::Gate>,
}
