-- One row: the version of this format, and the position below which every position has been used at some time.
-- user_version and application_id belong to the application.
CREATE TABLE event_meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  format INTEGER NOT NULL,
  position_floor INTEGER NOT NULL
)
