-- The one index: identity is (aggregate, seq). There is none on id, which is compared on replay and never searched.
CREATE UNIQUE INDEX event_aggregate_seq ON event (aggregate, seq)
