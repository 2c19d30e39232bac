//! Reads what is still to be told, on a thread and with connections of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::event::Weight;
use crate::ledger::row::{row_is_whole, session_id};
use crate::ledger::{FileKey, Files, OutboxRow};

/// Asks for pages.
pub struct Reader {
    questions: SyncSender<Question>,
}

struct Question {
    sink: String,
    after: i64,
    limit: usize,
    answer: oneshot::Sender<Vec<OutboxRow>>,
}

/// Pages that may be asked for at once. A sink asks for one at a time.
const QUESTIONS_MAX: usize = 1_024;
/// The bytes of bodies after which a page ends.
const PAGE_BYTES: usize = 4 << 20;

impl Reader {
    /// Starts the thread `ledger-read`; it ends with the last reader.
    pub fn start(files: Arc<Files>) -> std::io::Result<Self> {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        std::thread::Builder::new().name("ledger-read".into()).spawn(move || serve(&files, &asked))?;
        Ok(Self { questions })
    }

    pub async fn page(&self, sink: &str, after: i64, limit: usize) -> Vec<OutboxRow> {
        let (answer, answered) = oneshot::channel();
        let question = Question { sink: sink.to_owned(), after, limit, answer };
        if self.questions.try_send(question).is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }
}

fn serve(files: &Files, asked: &Receiver<Question>) {
    let mut open: HashMap<FileKey, Connection> = HashMap::new();
    while let Ok(Question { sink, after, limit, answer }) = asked.recv() {
        // In this order: what is committed up to here is in the files that are listed next.
        let until = files.outbox_committed();
        let pending = files.pending();
        open.retain(|key, _| pending.contains(key));
        let mut found = Vec::new();
        for key in pending {
            let connection = match open.entry(key) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => match files.reader(key) {
                    Ok(connection) => entry.insert(connection),
                    Err(_) => continue,
                },
            };
            if read(connection, &sink, after, until, limit, &mut found).is_err() {
                // It may have been replaced under its name; what was read of it stands.
                open.remove(&key);
            }
        }
        found.sort_unstable_by_key(|row| row.id);
        found.truncate(limit);
        let mut bytes = 0;
        let fits = found.iter().take_while(|row| {
            let is_first = bytes == 0;
            bytes += row.body.len().max(1);
            is_first || bytes <= PAGE_BYTES
        });
        let fits = fits.count();
        found.truncate(fits);
        let _ = answer.send(found);
    }
}

/// Appends what one file has. Damaged rows are left out: a receiver must not get what nobody wrote.
fn read(
    connection: &Connection,
    sink: &str,
    after: i64,
    until: i64,
    limit: usize,
    found: &mut Vec<OutboxRow>,
) -> rusqlite::Result<()> {
    let sql = "SELECT id, sink, event_id, session, weight, at_ms, body, crc FROM outbox \
               WHERE id > ?1 AND id <= ?2 AND sink = ?3 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, until, sink])?;
    let (mut count, mut bytes) = (0, 0);
    while count < limit
        && bytes < PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        if !row_is_whole(row, 7)? {
            continue;
        }
        let body: Vec<u8> = row.get(6)?;
        bytes += body.len();
        count += 1;
        found.push(OutboxRow {
            id: row.get(0)?,
            event_id: row.get::<_, String>(2)?.into(),
            session: row.get_ref(3)?.as_blob_or_null().ok().flatten().and_then(session_id),
            weight: Weight::from_rank(row.get(4)?),
            body: body.into(),
        });
    }
    Ok(())
}
