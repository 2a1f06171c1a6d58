"""Training: losses, cached gradients, and the loops that use them."""
