"""Runs and models go into MLflow and come back."""
