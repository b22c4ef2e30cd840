"""Where runs are tracked."""

from pipelines.settings.section import Address, Section


class TrackingConfig(Section):
    """The MLflow store and the experiment in it."""

    uri: Address | None = None
    """Tracking server or database. By default MLFLOW_TRACKING_URI, or else sqlite:///mlflow.db in the working
    folder."""
    experiment: str = "t3d"
    """Experiment that the runs belong to."""
