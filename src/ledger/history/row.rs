//! A session's row: as SQLite holds it while it is looked at, and as it leaves.

use rusqlite::Row;
use rusqlite::types::FromSqlResult;

use crate::ledger::history::Filter;
use crate::ledger::history::life::Life;
use crate::names::{SessionId, is_path};

/// What filters and sums look at.
pub(super) const NARROW: &str = "id, kind, protocol, vhost, app, stream, user, remote_ip, remote_port, opened_ms, \
     started_ms, updated_ms, closed_ms, reason, rx_bytes, tx_bytes";

/// Everything that is told of a session, which its query string is not: it may hold a token.
pub(super) const WIDE: &str = "id, kind, protocol, vhost, app, stream, user, remote_ip, remote_port, opened_ms, \
     started_ms, updated_ms, closed_ms, reason, rx_bytes, tx_bytes, labels, local, connection, shard, user_agent, \
     referrer, tc_url, authorized_ms, rx_media_bytes, tx_media_bytes, rx_frames, tx_frames, dropped_frames, \
     overflows, queue_peak_bytes, detail, side, recovered";

/// A session as it is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its identity.
    pub id: SessionId,
    /// What it was: `publish`, `play`, `ingest`, `push`.
    pub kind: String,
    /// How it was carried.
    pub protocol: String,
    /// The stream's virtual host.
    pub vhost: String,
    /// The stream's application.
    pub app: String,
    /// The stream's name.
    pub stream: String,
    /// Who the peer was, as admission said.
    pub user: Option<String>,
    /// What the back end attached: a JSON object of texts.
    pub labels: Option<String>,
    /// The peer's address, canonical.
    pub remote_ip: String,
    /// The peer's port.
    pub remote_port: u16,
    /// Our end.
    pub local: String,
    /// The transport association.
    pub connection: u64,
    /// The core that owned it.
    pub shard: u16,
    /// The peer's software, as it named itself.
    pub user_agent: Option<String>,
    /// The page that embedded the player, as the peer said; may hold secrets.
    pub referrer: Option<String>,
    /// RTMP `tcUrl`, as the peer said; may hold secrets.
    pub tc_url: Option<String>,
    /// First contact.
    pub opened_ms: u64,
    /// When it was let in.
    pub authorized_ms: Option<u64>,
    /// First media.
    pub started_ms: Option<u64>,
    /// When the numbers were so: the end, or the last checkpoint of one that still runs.
    pub updated_ms: u64,
    /// The end.
    pub closed_ms: Option<u64>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Of those received, the bodies of media messages.
    pub rx_media_bytes: u64,
    /// Of those sent, the bodies of media messages.
    pub tx_media_bytes: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Frames that a slow player did not get.
    pub dropped_frames: u64,
    /// How often a player fell out of the window.
    pub overflows: u64,
    /// The most bytes that ever waited for it.
    pub queue_peak_bytes: u64,
    /// Why it ended.
    pub reason: Option<String>,
    /// The rule, limit or cause within the reason.
    pub detail: Option<String>,
    /// Whose side it was.
    pub side: Option<String>,
    /// Its end was not seen, but concluded on the start after a crash.
    pub recovered: bool,
}

/// A row that is looked at. The numbers of the methods are the places of the columns in [`NARROW`] and [`WIDE`].
pub(super) struct Sight<'a>(pub(super) &'a Row<'a>);

impl<'a> Sight<'a> {
    pub(super) fn id(&self) -> rusqlite::Result<u128> {
        self.0.get::<_, [u8; 16]>(0).map(u128::from_be_bytes)
    }

    pub(super) fn kind(&self) -> rusqlite::Result<&'a str> {
        self.text(1)
    }

    pub(super) fn protocol(&self) -> rusqlite::Result<&'a str> {
        self.text(2)
    }

    pub(super) fn vhost(&self) -> rusqlite::Result<&'a str> {
        self.text(3)
    }

    pub(super) fn app(&self) -> rusqlite::Result<&'a str> {
        self.text(4)
    }

    pub(super) fn stream(&self) -> rusqlite::Result<&'a str> {
        self.text(5)
    }

    pub(super) fn user(&self) -> rusqlite::Result<Option<&'a str>> {
        self.optional(6)
    }

    pub(super) fn remote_ip(&self) -> rusqlite::Result<&'a str> {
        self.text(7)
    }

    pub(super) fn reason(&self) -> rusqlite::Result<Option<&'a str>> {
        self.optional(13)
    }

    pub(super) fn rx_bytes(&self) -> rusqlite::Result<u64> {
        self.number(14)
    }

    pub(super) fn tx_bytes(&self) -> rusqlite::Result<u64> {
        self.number(15)
    }

    pub(super) fn life(&self) -> rusqlite::Result<Life> {
        Ok(Life {
            opened_ms: self.number(9)?,
            started_ms: self.maybe(10)?,
            updated_ms: self.number(11)?,
            closed_ms: self.maybe(12)?,
        })
    }

    /// Whether `filter` means it.
    pub(super) fn matches(&self, filter: &Filter) -> rusqlite::Result<bool> {
        let life = self.life()?;
        if !life.is_in(filter.from_ms, filter.to_ms) || filter.open.is_some_and(|open| open != life.is_open()) {
            return Ok(false);
        }
        if !filter.kinds.is_empty() {
            let name = self.kind()?;
            if !filter.kinds.iter().any(|kind| kind.as_str() == name) {
                return Ok(false);
            }
        }
        if !filter.protocols.is_empty() {
            let name = self.protocol()?;
            if !filter.protocols.iter().any(|protocol| protocol.as_str() == name) {
                return Ok(false);
            }
        }
        if !filter.reasons.is_empty() {
            let name = self.reason()?;
            if !filter.reasons.iter().any(|reason| Some(reason.as_str()) == name) {
                return Ok(false);
            }
        }
        if !filter.users.is_empty() {
            let name = self.user()?;
            if !filter.users.iter().any(|user| Some(user.as_str()) == name) {
                return Ok(false);
            }
        }
        if !filter.vhosts.is_empty() || !filter.apps.is_empty() || !filter.streams.is_empty() {
            let (vhost, app, stream) = (self.vhost()?, self.app()?, self.stream()?);
            if !is_on(filter, vhost, app, stream) {
                return Ok(false);
            }
        }
        if !filter.remotes.is_empty() {
            let (ip, port) = (self.remote_ip()?, self.0.get(8)?);
            let is_meant = |address| filter.remotes.iter().any(|remote| remote.matches(address, port));
            if !ip.parse().is_ok_and(is_meant) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The whole of a row of [`WIDE`].
    pub(super) fn record(&self) -> rusqlite::Result<Record> {
        let owned = |at| self.text(at).map(str::to_owned);
        let maybe = |at| self.optional(at).map(|text| text.map(str::to_owned));
        let life = self.life()?;
        Ok(Record {
            id: SessionId::from_u128(self.id()?),
            kind: owned(1)?,
            protocol: owned(2)?,
            vhost: owned(3)?,
            app: owned(4)?,
            stream: owned(5)?,
            user: maybe(6)?,
            remote_ip: owned(7)?,
            remote_port: self.0.get(8)?,
            opened_ms: life.opened_ms,
            started_ms: life.started_ms,
            updated_ms: life.updated_ms,
            closed_ms: life.closed_ms,
            reason: maybe(13)?,
            rx_bytes: self.rx_bytes()?,
            tx_bytes: self.tx_bytes()?,
            labels: maybe(16)?,
            local: owned(17)?,
            connection: self.0.get::<_, i64>(18)?.cast_unsigned(),
            shard: self.0.get(19)?,
            user_agent: maybe(20)?,
            referrer: maybe(21)?,
            tc_url: maybe(22)?,
            authorized_ms: self.maybe(23)?,
            rx_media_bytes: self.number(24)?,
            tx_media_bytes: self.number(25)?,
            rx_frames: self.number(26)?,
            tx_frames: self.number(27)?,
            dropped_frames: self.number(28)?,
            overflows: self.number(29)?,
            queue_peak_bytes: self.number(30)?,
            detail: maybe(31)?,
            side: maybe(32)?,
            recovered: self.0.get::<_, i64>(33)? != 0,
        })
    }

    fn text(&self, at: usize) -> rusqlite::Result<&'a str> {
        read(at, self.0.get_ref(at)?.as_str())
    }

    fn optional(&self, at: usize) -> rusqlite::Result<Option<&'a str>> {
        read(at, self.0.get_ref(at)?.as_str_or_null())
    }

    fn number(&self, at: usize) -> rusqlite::Result<u64> {
        self.0.get::<_, i64>(at).map(whole)
    }

    fn maybe(&self, at: usize) -> rusqlite::Result<Option<u64>> {
        Ok(self.0.get::<_, Option<i64>>(at)?.map(whole))
    }
}

/// Whether the filter's names mean this stream.
pub(super) fn is_on(filter: &Filter, vhost: &str, app: &str, stream: &str) -> bool {
    let any = |names: &[String], is: &dyn Fn(&String) -> bool| names.is_empty() || names.iter().any(is);
    any(&filter.vhosts, &|name| name == vhost)
        && any(&filter.apps, &|name| name == app)
        && any(&filter.streams, &|path| is_path(path, vhost, app, stream))
}

/// Nothing that is counted is negative; what a damaged row says is not worth more than a zero.
fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn read<T>(at: usize, text: FromSqlResult<T>) -> rusqlite::Result<T> {
    text.map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error)))
}
