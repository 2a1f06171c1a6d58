"""Mining hard negatives."""
