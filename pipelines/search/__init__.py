"""Many trainings over a space of settings, on Ray Tune."""
