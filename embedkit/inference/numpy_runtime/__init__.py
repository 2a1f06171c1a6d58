"""Computing without torch: numpy, and the C kernels behind the same interface."""
