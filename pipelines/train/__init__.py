"""Labelled shards become a classifier (paper 4.4)."""
