-- What was found while older tables were adopted, and what the log could not take: columns without a type hold values as
-- they were, data only where the event is not in the log. It belongs to the application, which may drop it.
CREATE TABLE event_adoption_finding (
  key INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  message TEXT NOT NULL,
  events INTEGER,
  through INTEGER,
  aggregate_id,
  seq,
  id,
  type,
  created,
  data,
  owner_id
)
