"""Masked language modelling from plain text."""
