"""Indexes in shards: planned once, built by any number of workers, done where a receipt says so."""
