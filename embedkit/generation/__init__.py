"""Generating texts: greedily, by beam search or sampling; files of them; how good they are."""
