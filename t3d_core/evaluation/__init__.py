"""Clip scores become the paper's numbers."""
