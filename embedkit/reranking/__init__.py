"""Scoring a query and a text together."""
