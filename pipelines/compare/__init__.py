"""Runs in MLflow become one page of tables and plots beside the paper's."""
