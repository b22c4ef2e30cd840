"""What a run does now, for Prometheus: Ray's agent on every node shows it beside its own metrics, as `ray_t3d_...`."""

from ray.util.metrics import Gauge

from pipelines.worker import Metrics

GAUGES = {
    "throughput/clips_per_second": ("t3d_clips_per_second", "Clips that all workers of a run train on in a second."),
    "throughput/data_wait_share": (
        "t3d_data_wait_share",
        "Share of the time of steps in which worker 0 waits for data.",
    ),
    "data/unreadable_clips": ("t3d_unreadable_clips", "Clips that could not be read since the last point of the log."),
    "train/loss": ("t3d_loss", "Training loss since the last point of the log."),
}
STEP = ("t3d_step", "Steps that a run has made.")


class RunGauges:
    """The gauges of one run, told apart by its name."""

    def __init__(self, run_name: str) -> None:
        self._gauges = {name: _gauge(*description, run_name) for name, description in GAUGES.items()}
        self._step = _gauge(*STEP, run_name)

    def show(self, metrics: Metrics, *, step: int) -> None:
        """Show the newest point of the log; what it does not have stays as it was."""
        for name in metrics.keys() & self._gauges.keys():
            self._gauges[name].set(metrics[name])
        self._step.set(step)


def _gauge(name: str, description: str, run_name: str) -> Gauge:
    gauge = Gauge(name, description, tag_keys=("run",))
    gauge.set_default_tags({"run": run_name})
    return gauge
