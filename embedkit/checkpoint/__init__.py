"""Model folders as Hugging Face and sentence-transformers write them, both ways."""
