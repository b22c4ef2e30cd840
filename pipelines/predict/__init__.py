"""One's own videos are scored, without preparing them."""
