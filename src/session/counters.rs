//! What a session counts. Plain integers with one writer, the shard; copied in a snapshot.

/// A session's running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received from the peer as TCP payload, handshake included.
    pub rx_bytes: u64,
    /// Bytes handed to the kernel for the peer as TCP payload, handshake included.
    pub tx_bytes: u64,
    /// Of those received, the bytes of media message bodies.
    pub rx_media_bytes: u64,
    /// Of those sent, the bytes of media message bodies.
    pub tx_media_bytes: u64,
    /// Media frames received.
    pub rx_frames: u64,
    /// Media frames sent whole.
    pub tx_frames: u64,
    /// Frames that a slow player did not get.
    pub dropped_frames: u64,
    /// How often a player's cursor fell out of the window.
    pub overflows: u64,
    /// The most bytes that ever waited for this player.
    pub queue_peak_bytes: u64,
}
