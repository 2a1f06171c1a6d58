"""An index in shards: searched as one, wherever they lie."""
