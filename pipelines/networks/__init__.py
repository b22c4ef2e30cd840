"""Which network, from which weights."""
