-- One file a day, named for it (`2026-11-20.db`): what happened to the sessions that opened on that day (UTC), and what
-- is still to be told of them. A session's row and what is told of it are written in one transaction, so that nobody
-- hears of what is not on record. A session stays in the file of the day it opened, however long it lasts.
--
-- Times are milliseconds since the Unix epoch. Counters are those of `session::Counters`. `crc` is the CRC-32 of all
-- other columns of its row, in their order here: SQLite itself does not notice a bit that the disk has turned.

CREATE TABLE session (
    -- A UUIDv7: sixteen bytes whose order is the order of opening.
    id               BLOB PRIMARY KEY NOT NULL,
    kind             TEXT NOT NULL,             -- publish, play, ingest, push
    protocol         TEXT NOT NULL,
    vhost            TEXT NOT NULL,
    app              TEXT NOT NULL,
    stream           TEXT NOT NULL,
    user             TEXT,
    labels           TEXT,                      -- JSON object, absent when there are none
    remote_ip        TEXT NOT NULL,             -- canonical: IPv4-mapped addresses as IPv4
    remote_port      INTEGER NOT NULL,
    local            TEXT NOT NULL,             -- address and port
    connection       INTEGER NOT NULL,
    shard            INTEGER NOT NULL,
    query            TEXT,                      -- may hold a token: never shown
    user_agent       TEXT,
    referrer         TEXT,
    tc_url           TEXT,
    swf_url          TEXT,
    opened_ms        INTEGER NOT NULL,
    authorized_ms    INTEGER,
    started_ms       INTEGER,
    -- The last checkpoint, or the end.
    updated_ms       INTEGER NOT NULL,
    closed_ms        INTEGER,
    -- The number of the last event of the session that is on record.
    seq              INTEGER NOT NULL,
    rx_bytes         INTEGER NOT NULL DEFAULT 0,
    tx_bytes         INTEGER NOT NULL DEFAULT 0,
    rx_media_bytes   INTEGER NOT NULL DEFAULT 0,
    tx_media_bytes   INTEGER NOT NULL DEFAULT 0,
    rx_frames        INTEGER NOT NULL DEFAULT 0,
    tx_frames        INTEGER NOT NULL DEFAULT 0,
    dropped_frames   INTEGER NOT NULL DEFAULT 0,
    overflows        INTEGER NOT NULL DEFAULT 0,
    queue_peak_bytes INTEGER NOT NULL DEFAULT 0,
    reason           TEXT,
    detail           TEXT,
    side             TEXT,
    -- 1 when the end was not seen but concluded on the start after a crash.
    recovered        INTEGER NOT NULL DEFAULT 0,
    crc              INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX session_open ON session (id) WHERE closed_ms IS NULL;
CREATE INDEX session_user ON session (user, id) WHERE user IS NOT NULL;
CREATE INDEX session_stream ON session (stream, app, vhost, id);
CREATE INDEX session_remote ON session (remote_ip, id);
CREATE INDEX session_closed ON session (closed_ms) WHERE closed_ms IS NOT NULL;

-- Connections and requests that were refused before they became sessions.
CREATE TABLE attempt (
    id        INTEGER PRIMARY KEY,
    at_ms     INTEGER NOT NULL,
    protocol  TEXT NOT NULL,
    kind      TEXT,
    remote_ip TEXT NOT NULL,
    reason    TEXT NOT NULL,
    detail    TEXT,
    crc       INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What is still to be told, one row for each event and sink; gone when the sink has taken it.
CREATE TABLE outbox (
    id        INTEGER PRIMARY KEY,              -- the order of recording, over all files
    sink      TEXT NOT NULL,                    -- the sink's name in the configuration
    event_id  TEXT NOT NULL,                    -- stable across retries and restarts
    session   BLOB,                             -- whose events are told in order
    -- What may be dropped when the spool is full: 0 a periodic update (a newer one of the same session replaces it),
    -- 1 anything else, 2 what must be told (starts and stops).
    weight    INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    body      BLOB NOT NULL,
    crc       INTEGER NOT NULL DEFAULT 0,
    UNIQUE (sink, event_id)
) STRICT;

-- What leaves first when the spool is full.
CREATE INDEX outbox_droppable ON outbox (sink, weight, id) WHERE weight < 2;

-- Streams that are online, from the event that says so to the one that says that they are not. What is left here by a
-- life that did not end well is told offline by the next start.
CREATE TABLE online (
    stream    TEXT NOT NULL,
    app       TEXT NOT NULL,
    vhost     TEXT NOT NULL,
    publisher BLOB NOT NULL,                    -- the session that brought it online last
    crc       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, app, vhost)
) STRICT, WITHOUT ROWID;

-- Sums of what is in this file, so that they outlive its rows' detail and cost nothing to read.
CREATE TABLE total (
    collector TEXT NOT NULL,
    kind      TEXT NOT NULL,                    -- empty: attempts
    reason    TEXT NOT NULL,                    -- why they ended
    detail    TEXT NOT NULL,                    -- empty when the reason says all
    sessions  INTEGER NOT NULL DEFAULT 0,       -- started and finished
    rx_bytes  INTEGER NOT NULL DEFAULT 0,       -- of those
    tx_bytes  INTEGER NOT NULL DEFAULT 0,
    ended     INTEGER NOT NULL DEFAULT 0,       -- all of them, started or not
    crc       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (collector, kind, reason, detail)
) STRICT, WITHOUT ROWID;

-- One row, in a file that took the place of another of its day: the generation whose running sessions and outbox it
-- took over. What is left of those in the older file is void.
CREATE TABLE took_over (
    generation INTEGER PRIMARY KEY
) STRICT;
