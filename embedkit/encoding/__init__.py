"""Text to vectors: backends that run a model, and the pipeline that feeds them."""
