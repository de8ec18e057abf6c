-- Ranges of sequences that no longer exist and that the log says so of: after < seq <= through.
CREATE TABLE event_gap (
  aggregate INTEGER NOT NULL,
  after INTEGER NOT NULL,
  through INTEGER NOT NULL,
  PRIMARY KEY (aggregate, after)
) WITHOUT ROWID
