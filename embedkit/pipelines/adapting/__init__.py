"""Adapting a model to documents that nobody has labelled."""
