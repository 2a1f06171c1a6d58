"""What every training run is made of: the loop, the optimizer, ranks, checkpoints."""
