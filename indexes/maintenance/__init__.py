"""Building, compacting, checking, repairing, measuring and exchanging an index."""
