-- Finds what is not projected to its end. Partial: a run, which moves seq alone, never touches it.
CREATE INDEX event_sequence_unprojected ON event_sequence (key) WHERE projected_seq IS NOT NULL
