"""Training text generators: encoder–decoders on pairs of texts, and language models on texts."""
