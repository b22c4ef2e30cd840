"""Rows become decoded batches, in an order of our own."""
