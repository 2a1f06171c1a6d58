"""Stores that teams run: an index pushed into one, pulled out of it again, and searched there."""
