"""The index on disk: segments, the database, commits and the lock."""
