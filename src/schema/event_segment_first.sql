-- Finds the segments that reach over a position, without touching their blobs.
CREATE UNIQUE INDEX event_segment_first ON event_segment (position, first, aggregate, first_seq, seq, generation)
