"""Checks of every CUDA path against the CPU, and measurements: `python -m benchmarks.gpu`, see docs/gpu.md."""
