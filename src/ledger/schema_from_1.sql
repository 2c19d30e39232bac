-- What the second version of a day's file has and the first has not; `schema.sql` says what it is.
CREATE TABLE online (
    stream    TEXT NOT NULL,
    app       TEXT NOT NULL,
    vhost     TEXT NOT NULL,
    publisher BLOB NOT NULL,
    crc       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, app, vhost)
) STRICT, WITHOUT ROWID;

-- What the sums are kept by has changed; they are added up anew from the rows of the file.
DROP TABLE total;
CREATE TABLE total (
    collector TEXT NOT NULL,
    kind      TEXT NOT NULL,
    reason    TEXT NOT NULL,
    detail    TEXT NOT NULL,
    sessions  INTEGER NOT NULL DEFAULT 0,
    rx_bytes  INTEGER NOT NULL DEFAULT 0,
    tx_bytes  INTEGER NOT NULL DEFAULT 0,
    ended     INTEGER NOT NULL DEFAULT 0,
    crc       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (collector, kind, reason, detail)
) STRICT, WITHOUT ROWID;
