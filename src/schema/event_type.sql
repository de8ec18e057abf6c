-- Interned "type.version" names. Rows are never deleted and keys never change.
CREATE TABLE event_type (
  key INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
)
