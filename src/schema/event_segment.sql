-- Packed events: consecutive ones of one aggregate, older than all its rows in "event". position and first are those of
-- the last and the first event in it, seq and first_seq likewise. generation counts how often a segment that ends here has
-- been written anew, effort says how hard it was compressed: 0 in passing, 1 when asked to.
CREATE TABLE event_segment (
  position INTEGER PRIMARY KEY,
  first INTEGER NOT NULL,
  aggregate INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  effort INTEGER NOT NULL,
  summary BLOB NOT NULL,
  head BLOB NOT NULL,
  body BLOB NOT NULL
)
