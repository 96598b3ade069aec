-- What handlers owe, and where they are. Written in the transaction that appends; see model/delivery.py for the meaning.
CREATE TABLE cursors (handler TEXT PRIMARY KEY, position INTEGER NOT NULL, live INTEGER NOT NULL) WITHOUT ROWID;

-- In the order of the log: new rows come at the right edge, and a row is settled soon after it was written.
CREATE TABLE deliveries (
    revision INTEGER NOT NULL,
    handler  TEXT NOT NULL,
    number   INTEGER NOT NULL,
    subject  TEXT NOT NULL,
    change   INTEGER NOT NULL,
    outcome  TEXT NOT NULL,
    attempt  INTEGER NOT NULL,
    next_at  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    detail   TEXT NOT NULL,
    event    BLOB NOT NULL,
    replay   INTEGER NOT NULL,
    PRIMARY KEY (revision, handler, number)
) WITHOUT ROWID;
-- What is to be done and what went wrong: few among millions.
CREATE INDEX deliveries_pending ON deliveries (revision, handler, number) WHERE outcome = 'pending';
CREATE INDEX deliveries_dead ON deliveries (revision, handler, number) WHERE outcome = 'dead';

CREATE TABLE state (
    owner TEXT NOT NULL,
    space TEXT NOT NULL,
    key   TEXT NOT NULL,
    value BLOB NOT NULL,
    due   INTEGER NOT NULL,
    PRIMARY KEY (owner, space, key)
) WITHOUT ROWID;
