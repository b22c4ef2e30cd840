"""One optimisation step, wherever it runs: tasks, optimisers, weights files."""
