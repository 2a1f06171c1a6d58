"""Indexes of weights of terms, as learned sparse models give them: rows in 8 bits, lists by term, pruned search."""
