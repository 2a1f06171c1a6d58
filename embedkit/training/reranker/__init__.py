"""Training a cross-encoder."""
