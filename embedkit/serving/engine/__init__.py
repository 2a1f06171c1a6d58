"""The engine room: texts of many requests become tokens in a pool, and vectors or scores in one compute thread."""
