//! Reads what is still to be told, on a thread and with connections of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::{Connection, ErrorCode, params};
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
    answer: oneshot::Sender<Option<Vec<OutboxRow>>>,
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

    /// None when it cannot be said just now.
    pub async fn page(&self, sink: &str, after: i64, limit: usize) -> Option<Vec<OutboxRow>> {
        let (answer, answered) = oneshot::channel();
        let question = Question { sink: sink.to_owned(), after, limit, answer };
        self.questions.try_send(question).ok()?;
        answered.await.ok().flatten()
    }
}

fn serve(files: &Files, asked: &Receiver<Question>) {
    let mut open: HashMap<FileKey, Connection> = HashMap::new();
    while let Ok(question) = asked.recv() {
        let page = look(files, &mut open, &question);
        let _ = question.answer.send(page);
    }
}

/// A page over all files. None when one of them cannot be read just now: with what the others have, the reader would pass
/// over what is in that one.
fn look(files: &Files, open: &mut HashMap<FileKey, Connection>, question: &Question) -> Option<Vec<OutboxRow>> {
    let Question { sink, after, limit, .. } = question;
    // In this order: what is committed up to here is in the files that are listed next.
    let until = files.outbox_committed();
    let pending = files.pending();
    open.retain(|key, _| pending.contains(key));
    let mut found = Vec::new();
    for key in pending {
        let result = match open.entry(key) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => files.reader(key).map(|connection| entry.insert(connection)),
        };
        match result.and_then(|connection| read(connection, sink, *after, until, *limit, &mut found)) {
            Ok(()) => {}
            // What cannot be read of a damaged file will not be readable in a moment either. The next start moves what is
            // left of it to another file; until then it must not keep everything else back.
            Err(error) if is_damage(&error) => {
                open.remove(&key);
            }
            Err(_) => {
                // It may have been replaced under its name.
                open.remove(&key);
                return None;
            }
        }
    }
    found.sort_unstable_by_key(|row| row.id);
    found.truncate(*limit);
    let mut bytes = 0;
    let fits = found.iter().take_while(|row| {
        let is_first = bytes == 0;
        bytes += row.body.len().max(1);
        is_first || bytes <= PAGE_BYTES
    });
    let fits = fits.count();
    found.truncate(fits);
    Some(found)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
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
