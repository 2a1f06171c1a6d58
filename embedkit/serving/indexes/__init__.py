"""Indexes that are served: several at once, by name, each request on one commit of each, whatever happens to them on disk."""
