"""A client of `embedkit serve`: what the command line searches and encodes with where it is given an address."""
