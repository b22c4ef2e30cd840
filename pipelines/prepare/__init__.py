"""Videos and their annotations become shards."""
