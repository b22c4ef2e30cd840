"""The method at cluster scale: the same stages on Ray Data, Ray Train and Ray Tune, tracked in MLflow."""
