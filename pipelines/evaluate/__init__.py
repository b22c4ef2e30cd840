"""A checkpoint is tested on whole videos (paper 4.4)."""
