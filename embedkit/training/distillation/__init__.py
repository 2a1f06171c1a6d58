"""Distilling a sentence encoder into a smaller one."""
