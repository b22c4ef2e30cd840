"""The search stage: what trials cost beside plain runs."""
