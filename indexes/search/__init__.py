"""Finding the hits of a query in one snapshot of an index."""
