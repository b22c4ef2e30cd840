"""Runs in MLflow become one page of tables and plots, next to the paper's figures."""
