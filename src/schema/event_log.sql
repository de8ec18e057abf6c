-- The events that are rows, for people with any sqlite3 shell.
CREATE VIEW event_log (position, id, aggregate_id, seq, type, created, data) AS
  SELECT event.position, event.id, event_sequence.aggregate_id, event.seq, event_type.name, event.created, event.data
  FROM event
  JOIN event_sequence ON event_sequence.key = event.aggregate
  JOIN event_type ON event_type.key = event.type
