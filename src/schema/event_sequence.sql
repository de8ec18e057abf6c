-- One row an aggregate, in order of creation. seq is the last one given, -1 where only a claim was made.
-- removed_* is the tombstone: through which seq history was erased, the deletion event (a serialized event as JSON text)
-- that told why, and the position of the removal or, where the deletion event had been there by itself before, of that.
-- compacted_seq is the seq through which history was compacted last, compacted_by the rules by which it was.
-- projected_seq is NULL where every event is projected, else the last one that is (-1: none): what comes after it is only
-- stored, from the first event of a type on that the program did not know.
-- moved_at is the last position at which the aggregate moved without leaving an event row: a removal, or a gap.
CREATE TABLE event_sequence (
  key INTEGER PRIMARY KEY,
  aggregate_id TEXT NOT NULL UNIQUE,
  seq INTEGER NOT NULL,
  owner_id TEXT,
  epoch INTEGER NOT NULL DEFAULT 0,
  removed_seq INTEGER,
  removed_at INTEGER,
  removed_event TEXT,
  moved_at INTEGER,
  compacted_seq INTEGER,
  compacted_by INTEGER,
  projected_seq INTEGER
)
