"""A checkpoint becomes one file that runs without this project."""
