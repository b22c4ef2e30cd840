"""Where runs are tracked."""

from pipelines.settings.section import Address, Section


class TrackingConfig(Section):
    """MLflow."""

    uri: Address | None = None
    """Tracking server or database; none: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db where you stand."""
    experiment: str = "t3d"
    """Experiment to which runs belong."""
