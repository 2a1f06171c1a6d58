"""Measurements that anyone can repeat: scripts, and `benchmarks.gpu`, which `make gpu` runs."""
