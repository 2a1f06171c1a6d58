"""Indexes with a vector for each token, compared by MaxSim: how they are stored, and searched."""
