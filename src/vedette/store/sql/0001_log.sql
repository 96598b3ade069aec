-- The log, its fold, and what tells duplicates. Times and revisions are integers (UTC microseconds; a revision starts as one).
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- One row per notice. `notice` is msgpack (everything but the payload, and the readings); `payload` is the scrubbed JSON.
CREATE TABLE entries (
    revision    INTEGER PRIMARY KEY,
    appended_at INTEGER NOT NULL,
    source      TEXT NOT NULL,
    event_type  TEXT NOT NULL,
    notice      BLOB NOT NULL,
    payload     BLOB NOT NULL
);
-- The service's own entries (gaps, the not-understood box) are few and are looked for among millions.
CREATE INDEX entries_own ON entries (event_type, revision) WHERE event_type LIKE 'vedette.%';

-- Ids the log has. The key starts with the notice's own second, so new ones land at the right edge of the tree and a batch
-- touches few pages; the same notice twice has the same second.
CREATE TABLE seen (id BLOB PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;

-- What each entry did. `before` is the seq of the state it replaced.
CREATE TABLE changes (
    seq      INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    source   TEXT NOT NULL,
    grp      TEXT NOT NULL,
    kind     TEXT NOT NULL,
    id       TEXT NOT NULL,
    verb     TEXT NOT NULL,
    before   INTEGER,
    project  TEXT NOT NULL,
    shared   INTEGER NOT NULL,
    owner    TEXT NOT NULL,
    cut      INTEGER NOT NULL,
    body     BLOB NOT NULL
);
CREATE INDEX changes_revision ON changes (revision);

-- The present state of each object: a pointer at its change, never a second copy of the body. In the order of a list.
CREATE TABLE objects (
    grp       TEXT NOT NULL,
    kind      TEXT NOT NULL,
    source    TEXT NOT NULL,
    id        TEXT NOT NULL,
    seq       INTEGER,
    revision  INTEGER NOT NULL,
    project   TEXT NOT NULL,
    shared    INTEGER NOT NULL,
    owner     TEXT NOT NULL,
    as_of     INTEGER NOT NULL,
    version   INTEGER,
    deleted   INTEGER NOT NULL,
    -- Revision at which project, shared or owner last changed: a page as of an earlier revision has to look closer.
    scoped_at INTEGER NOT NULL,
    PRIMARY KEY (grp, kind, source, id)
) WITHOUT ROWID;
-- Tombstones of things never seen: retention looks for these few among all objects.
CREATE INDEX objects_unseen ON objects (revision) WHERE seq IS NULL;
