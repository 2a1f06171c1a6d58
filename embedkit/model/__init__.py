"""The neural networks: tensors in, tensors out; no files and no text."""
