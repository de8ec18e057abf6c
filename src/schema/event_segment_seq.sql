-- Finds the segment that a seq of an aggregate is in: the first that ends at it or later.
CREATE UNIQUE INDEX event_segment_seq ON event_segment (aggregate, seq, first_seq, first, generation)
