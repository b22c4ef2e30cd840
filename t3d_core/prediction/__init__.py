"""Whole videos become predictions: scores over time, explanations."""
