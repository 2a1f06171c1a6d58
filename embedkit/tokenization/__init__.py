"""Text to token ids, through the `tokenizers` library."""
