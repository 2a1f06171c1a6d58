"""How good is a ranking, an embedding or a clustering, and is it better than another? Needs numpy alone."""
