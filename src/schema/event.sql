-- Appended at the end of one tree, in the order of commits. A position is never used twice: it is one above the newest
-- row or above event_meta.position_floor, whichever is higher (AUTOINCREMENT would cost a page a commit).
CREATE TABLE event (
  position INTEGER PRIMARY KEY,
  aggregate INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  id TEXT NOT NULL,
  type INTEGER NOT NULL,
  created INTEGER,
  metadata TEXT,
  data TEXT NOT NULL
)
