"""Training rows: reading them, their columns, and drawing batches from several sets."""
