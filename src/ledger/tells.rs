//! The rows of an outbox: put in, taken out, and copied to another file.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::event::Weight;
use crate::ledger::Tell;
use crate::ledger::row::{self, id_bytes, int};

/// Rows that leave a full spool in one transaction.
const TRIMMED: u32 = 512;

/// Puts a row into the outbox; false when the same sink was to be told of the same event already.
pub fn insert_tell(connection: &Connection, id: i64, tell: &Tell, at_ms: u64) -> rusqlite::Result<bool> {
    let session = tell.session.map(id_bytes);
    let crc = row::checksum(&[
        ValueRef::Integer(id),
        ValueRef::Text(tell.sink.as_bytes()),
        ValueRef::Text(tell.event_id.as_bytes()),
        session.as_ref().map_or(ValueRef::Null, |session| ValueRef::Blob(session)),
        ValueRef::Integer(tell.weight.rank().into()),
        ValueRef::Integer(int(at_ms)),
        ValueRef::Blob(&tell.body),
    ]);
    let sql = "INSERT INTO outbox (id, sink, event_id, session, weight, at_ms, body, crc) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (sink, event_id) DO NOTHING";
    let session = session.as_ref().map(|session| &session[..]);
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.execute(params![
        id,
        &*tell.sink,
        tell.event_id,
        session,
        tell.weight.rank(),
        int(at_ms),
        &tell.body[..],
        crc
    ])?;
    Ok(rows == 1)
}

/// Takes a row out of the outbox; the bytes of its body if it was there.
pub fn delete(connection: &Connection, id: i64, sink: &str) -> rusqlite::Result<Option<u64>> {
    let sql = "DELETE FROM outbox WHERE id = ?1 AND sink = ?2 RETURNING LENGTH(body)";
    let found: Option<i64> =
        connection.prepare_cached(sql)?.query_row(params![id, sink], |row| row.get(0)).optional()?;
    Ok(found.map(|bytes| u64::try_from(bytes).unwrap_or(0)))
}

/// Takes the oldest rows of one weight out of the outbox; the bytes of each body.
pub fn trim(connection: &Connection, sink: &str, weight: Weight) -> rusqlite::Result<Vec<u64>> {
    // The second condition on the weight is what lets SQLite use the index of what may leave.
    let sql = "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE sink = ?1 AND weight = ?2 AND weight < 2 \
               ORDER BY id LIMIT ?3) RETURNING LENGTH(body)";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![sink, weight.rank(), TRIMMED], |row| row.get::<_, i64>(0))?;
    rows.map(|bytes| Ok(u64::try_from(bytes?).unwrap_or(0))).collect()
}

/// Copies what can be read of an outbox in its order, under new names; how many rows that was.
pub fn copy_outbox(from: &Connection, to: &Connection, next_id: &mut i64) -> rusqlite::Result<u64> {
    let mut copied = 0;
    let sql = "SELECT sink, event_id, session, weight, at_ms, body FROM outbox ORDER BY id";
    let Ok(mut statement) = from.prepare(sql) else { return Ok(0) };
    let Ok(mut rows) = statement.query([]) else { return Ok(0) };
    // An error here is the old file's, which is why there is a new one.
    while let Ok(Some(row)) = rows.next() {
        let Some((tell, at_ms)) = tell_of(row) else { continue };
        if insert_tell(to, *next_id, &tell, at_ms)? {
            *next_id += 1;
            copied += 1;
        }
    }
    Ok(copied)
}

fn tell_of(row: &rusqlite::Row<'_>) -> Option<(Tell, u64)> {
    let session = row.get_ref(2).ok()?.as_blob_or_null().ok()?.and_then(row::session_id);
    let tell = Tell {
        sink: row.get::<_, String>(0).ok()?.into(),
        event_id: row.get(1).ok()?,
        weight: Weight::from_rank(row.get(3).ok()?),
        session,
        body: row.get::<_, Vec<u8>>(5).ok()?.into(),
    };
    Some((tell, u64::try_from(row.get::<_, i64>(4).ok()?).unwrap_or(0)))
}
