"""Running a model, whatever it is for: which runtime computes it, in which precision, and the runtimes."""
