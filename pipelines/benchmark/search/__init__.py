"""The search stage: what trials cost compared with plain runs."""
