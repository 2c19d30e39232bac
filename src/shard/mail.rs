//! Everything that crosses between control and a shard, in two enums.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::{Ban, Load, Ticket, Verdict, Whom};
use crate::event::Event;
use crate::names::{SessionId, ShardId, StreamKey};
use crate::proto::rtmp::GlitchCounts;
use crate::session::{CloseReason, Facts, SessionSample};
use crate::shard::Rules;
use crate::stdx::histogram::Histogram;
use crate::stream::{RelayReceiver, RelaySender, StreamSample};

/// What a shard tells control.
pub enum ToControl {
    /// Something happened.
    Event(Event),
    /// May this session do what it asks for? A publish always comes here: only control knows who else publishes the
    /// stream. A play comes here when more than the shard's own rules apply. Answered by [`ToShard::Verdict`].
    Ask {
        /// Quoted in the answer.
        ticket: Ticket,
        /// Who asks.
        facts: Arc<Facts>,
    },
    /// The publisher of a stream homed on this shard left (its session closed). The resume window runs.
    PublisherLeft {
        /// The stream.
        key: StreamKey,
        /// The session that left.
        session: SessionId,
    },
    /// This shard has its first subscriber of a stream, whether homed here or not.
    Subscribe(StreamKey),
    /// This shard's last subscriber of a stream left, or the stream ended here.
    Unsubscribe(StreamKey),
    /// The shard's numbers, every `report_every`.
    Report(Box<Report>),
    /// An order was carried out: how many sessions it touched.
    Done {
        /// Which order.
        order: OrderId,
        /// How many sessions.
        count: usize,
    },
    /// The shard has closed everything and its thread ends.
    Stopped,
}

/// What control tells a shard.
pub enum ToShard {
    /// The answer to [`ToControl::Ask`].
    Verdict {
        /// Which question.
        ticket: Ticket,
        /// Yes and on which terms, or why not.
        verdict: Verdict,
    },
    /// Copy frames of a stream homed here into this queue, and ring that shard's doorbell.
    RelayOpen {
        /// The stream.
        key: StreamKey,
        /// Who receives.
        to: ShardId,
        /// The queue.
        queue: RelaySender,
    },
    /// Stop copying.
    RelayClose {
        /// The stream.
        key: StreamKey,
        /// Who received.
        to: ShardId,
    },
    /// Frames of a stream that this shard subscribed to come from here.
    RelayAttach {
        /// The stream.
        key: StreamKey,
        /// The queue.
        queue: RelayReceiver,
    },
    /// Close these sessions. Answered by [`ToControl::Done`].
    Close {
        /// Quoted in the answer.
        order: OrderId,
        /// Which; unknown ids are skipped.
        sessions: Vec<SessionId>,
        /// Why.
        reason: CloseReason,
        /// What their users read of it, where a back end has words of its own.
        text: Option<Box<str>>,
    },
    /// Refuse these from now on. Answered by [`ToControl::Done`].
    Ban {
        /// Quoted in the answer.
        order: OrderId,
        /// Whom.
        bans: Arc<[Ban]>,
    },
    /// Lift one ban.
    Unban(Whom),
    /// Obey these rules from now on, and end the sessions that the new admission rules would not have let in and the
    /// old ones did. Answered by [`ToControl::Done`].
    Configure {
        /// Quoted in the answer.
        order: OrderId,
        /// The rules.
        rules: Arc<Rules>,
    },
    /// The server is under more pressure than before, or less.
    Load(Load),
    /// Newcomers are recorded from now on, or need not be; or nothing can be recorded of them, and they are refused.
    Recorded(bool),
    /// Stop accepting, say goodbye to every session, evenly until the deadline, then stop.
    Drain {
        /// When everything must be closed.
        deadline: Instant,
    },
    /// Close everything now and stop.
    Stop,
}

/// Names an order, so that its answer can be matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrderId(pub u64);

/// A shard's numbers.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose.
    pub shard: ShardId,
    /// When.
    pub at: Instant,
    /// Sessions whose numbers changed since the last report.
    pub sessions: Vec<SessionSample>,
    /// Every stream on the shard.
    pub streams: Vec<StreamSample>,
    /// The shard itself.
    pub load: ShardLoad,
}

/// The first bucket of [`ShardLoad::fanout`] ends at 2^7 microseconds, an eighth of a millisecond; the last at 16 s.
pub const FANOUT_FIRST: u32 = 7;

/// How a shard is doing. Counts are totals since the start unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardLoad {
    /// Connections open now.
    pub connections: usize,
    /// Of those, not yet admitted.
    pub unauthenticated: usize,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused at accept.
    pub refused: u64,
    /// Times that accepting paused, for want of descriptors.
    pub accept_pauses: u64,
    /// Time in which nobody was accepted, whatever for.
    pub accept_paused: Duration,
    /// Times that `accept_rate` left peers in the backlog.
    pub accept_rate_hits: u64,
    /// Longest time the executor was late for its tick, in the last report period.
    pub loop_lag_max: Duration,
    /// How late it was at most for 99 of 100 ticks of the last ten seconds.
    pub loop_lag_p99: Duration,
    /// Bytes waiting for all players together, now.
    pub queue_bytes: u64,
    /// Packaged media held, now.
    pub log_bytes: u64,
    /// Write calls.
    pub writes: u64,
    /// Read calls.
    pub reads: u64,
    /// Bytes written.
    pub tx_bytes: u64,
    /// Bytes read.
    pub rx_bytes: u64,
    /// Rounds of the pump.
    pub rounds: u64,
    /// Times that a connection's turn ended with messages left for the next.
    pub turns_cut: u64,
    /// Times that the clerk was woken by mail or a relay, and not by its clock.
    pub wakeups: u64,
    /// Times that the clerk looked at the clock.
    pub ticks: u64,
    /// Frames dropped for slow players.
    pub dropped_frames: u64,
    /// Frames dropped between shards.
    pub relay_dropped: u64,
    /// Glitches seen on connections, by what they were.
    pub glitches: GlitchCounts,
    /// Panics caught, each of which closed one connection.
    pub internal_errors: u64,
    /// Session types that are refused because they met defects, of the process.
    pub types_disabled: usize,
    /// From ingest to the socket: one sample for each stream and round of the pump, in microseconds.
    pub fanout: Histogram<FANOUT_FIRST>,
    /// Bans in force.
    pub bans: usize,
    /// Requests refused by a ban.
    pub ban_hits: u64,
    /// CPU time of the shard's thread.
    pub cpu: Duration,
    /// Mail that found the queue to control full and waited (in messages).
    pub mail_backlog: usize,
}
