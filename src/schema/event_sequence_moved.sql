-- Finds what moved after a position and left no event row. Partial: a run, which moves seq alone, never touches it.
CREATE INDEX event_sequence_moved ON event_sequence (moved_at) WHERE moved_at IS NOT NULL
