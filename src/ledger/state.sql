-- What belongs to no day.
--
-- Times are milliseconds since the Unix epoch.

CREATE TABLE ban (
    address  TEXT NOT NULL,                     -- canonical
    kind     TEXT NOT NULL,                     -- empty: in any role
    vhost    TEXT NOT NULL,                     -- empty with app and stream: on any stream
    app      TEXT NOT NULL,
    stream   TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (address, kind, vhost, app, stream)
) STRICT, WITHOUT ROWID;

-- Sums of files that were removed. They are written before the file goes and count only once it is gone, so that a
-- removal that was cut short is neither lost nor counted twice.
CREATE TABLE removed (
    file      TEXT NOT NULL,
    collector TEXT NOT NULL,
    kind      TEXT NOT NULL,
    reason    TEXT NOT NULL,                    -- empty where an earlier version did not know it
    detail    TEXT NOT NULL,
    sessions  INTEGER NOT NULL,
    rx_bytes  INTEGER NOT NULL,
    tx_bytes  INTEGER NOT NULL,
    ended     INTEGER NOT NULL,
    PRIMARY KEY (file, collector, kind, reason, detail)
) STRICT, WITHOUT ROWID;
