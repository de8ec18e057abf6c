-- Only while older tables are being adopted: one row, how far that is. Rowids of the older events up to last_rowid are their
-- positions. With 0 there are none such, and all get new positions.
CREATE TABLE event_adoption (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  last_rowid INTEGER NOT NULL,
  remaining INTEGER NOT NULL,
  aggregates INTEGER NOT NULL,
  events INTEGER NOT NULL,
  bytes INTEGER NOT NULL
)
