"""Writing whole files and folders, and the cache."""
