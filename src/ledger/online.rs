//! The streams that are online, a row for each, written and removed with what is told of it: whoever was told that a
//! stream is online is told that it is over, by the next start where this life cannot do it.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::row::{self, id_bytes, row_is_whole, session_id};
use crate::names::{Name, SessionId, StreamKey};

/// A stream is online by the word of `publisher`, also where another's was before.
pub fn write(connection: &Connection, key: &StreamKey, publisher: SessionId) -> rusqlite::Result<()> {
    let publisher = id_bytes(publisher);
    let (stream, app, vhost) = (key.stream(), key.app(), key.vhost());
    let crc = row::checksum(&[
        ValueRef::Text(stream.as_bytes()),
        ValueRef::Text(app.as_bytes()),
        ValueRef::Text(vhost.as_bytes()),
        ValueRef::Blob(&publisher),
    ]);
    let sql = "INSERT OR REPLACE INTO online (stream, app, vhost, publisher, crc) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(sql)?.execute(params![stream, app, vhost, &publisher[..], crc])?;
    Ok(())
}

/// It is not any more.
pub fn remove(connection: &Connection, key: &StreamKey) -> rusqlite::Result<()> {
    let sql = "DELETE FROM online WHERE stream = ?1 AND app = ?2 AND vhost = ?3";
    connection.prepare_cached(sql)?.execute(params![key.stream(), key.app(), key.vhost()])?;
    Ok(())
}

/// How many there are.
pub fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let count: i64 = connection.query_row("SELECT COUNT(*) FROM online", [], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Those that can be read, in the order in which they came, each with the time at which its publisher was heard of last
/// where that is on record here.
pub fn read(connection: &Connection) -> rusqlite::Result<Vec<(StreamKey, SessionId, Option<u64>)>> {
    let mut statement =
        connection.prepare("SELECT stream, app, vhost, publisher, crc FROM online ORDER BY publisher")?;
    let mut heard = connection.prepare("SELECT updated_ms FROM session WHERE id = ?1")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if !row_is_whole(row, 4)? {
            continue;
        }
        let text = |index: usize| row.get::<_, String>(index);
        let (Ok(stream), Ok(app), Ok(vhost)) = (Name::stream(&text(0)?), Name::app(&text(1)?), Name::app(&text(2)?))
        else {
            continue;
        };
        let id: Vec<u8> = row.get(3)?;
        let Some(publisher) = session_id(&id) else { continue };
        let heard_ms: Option<i64> = heard.query_row([&id], |row| row.get(0)).optional()?;
        let heard_ms = heard_ms.and_then(|ms| u64::try_from(ms).ok());
        found.push((StreamKey::new(&vhost, &app, &stream), publisher, heard_ms));
    }
    Ok(found)
}
