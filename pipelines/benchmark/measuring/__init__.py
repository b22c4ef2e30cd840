"""What the suites measure with: alternating times, processes, memory, generated data."""
