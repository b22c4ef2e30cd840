"""A recipe and a command line become one checked config."""
