-- What the second version of a day's file has and the first has not; `schema.sql` says what it is.
CREATE TABLE online (
    stream    TEXT NOT NULL,
    app       TEXT NOT NULL,
    vhost     TEXT NOT NULL,
    publisher BLOB NOT NULL,
    crc       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, app, vhost)
) STRICT, WITHOUT ROWID;
