"""Serving what the pipelines do to other programs."""
