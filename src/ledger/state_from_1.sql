-- Sums are kept by why sessions ended, which the first version did not do.
ALTER TABLE removed RENAME TO removed_1;
CREATE TABLE removed (
    file      TEXT NOT NULL,
    collector TEXT NOT NULL,
    kind      TEXT NOT NULL,
    reason    TEXT NOT NULL,
    detail    TEXT NOT NULL,
    sessions  INTEGER NOT NULL,
    rx_bytes  INTEGER NOT NULL,
    tx_bytes  INTEGER NOT NULL,
    ended     INTEGER NOT NULL,
    PRIMARY KEY (file, collector, kind, reason, detail)
) STRICT, WITHOUT ROWID;
INSERT INTO removed SELECT file, collector, kind, '', '', sessions, rx_bytes, tx_bytes, sessions FROM removed_1;
DROP TABLE removed_1;
