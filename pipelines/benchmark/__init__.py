"""This machine against its limits and its peers: `python jobs/benchmark.py model`, `decode` or `prepare`."""
