-- Finds, in their order, the deletion events that stand in tombstones in place of rows.
CREATE INDEX event_sequence_removed ON event_sequence (removed_at) WHERE removed_event IS NOT NULL
