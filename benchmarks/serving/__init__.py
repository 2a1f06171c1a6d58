"""Loads for `embedkit serve`: many clients at once, on this machine alone."""
