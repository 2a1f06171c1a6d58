"""Contrastive fine-tuning of a sentence encoder."""
