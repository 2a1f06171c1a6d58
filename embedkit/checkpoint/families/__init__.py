"""The rows of the newer families: how each writes its config and names its weights."""
