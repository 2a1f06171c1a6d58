"""What a training run leaves to read: the model card and plots."""
