"""Writing whole files and folders, telling contents apart, and the cache."""
