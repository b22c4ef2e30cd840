"""The transfer stage: what a pair costs."""
