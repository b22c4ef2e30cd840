"""A trained network answers over HTTP: videos are sent to it, scores come back."""
