"""The current state of a run for Prometheus: Ray's agent on every node shows it next to its own, as `ray_t3d_...`.

The agent drops a gauge that was not set for about 20 s. Two points of the log may be further apart, and a run that
stands still must stay visible. A thread therefore sets all gauges again until the run ends.
"""

import contextlib
import threading

from ray.util.metrics import Gauge

from pipelines.training.worker import Metrics

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


_SECONDS_BETWEEN_SETS = 5.0


class RunGauges(contextlib.AbstractContextManager):
    """The gauges of one run, labelled with its name; they are shown until the block ends."""

    def __init__(self, run_name: str) -> None:
        self._gauges = {name: _gauge(*description, run_name) for name, description in (GAUGES | {"step": STEP}).items()}
        self._values: Metrics = {}
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_setting, daemon=True)
        self._thread.start()

    def show(self, metrics: Metrics, *, step: int) -> None:
        """Show the newest point of the log; gauges that it does not have stay as they were."""
        known = {name: metrics[name] for name in metrics.keys() & GAUGES.keys()}
        self._values = self._values | known | {"step": step}
        self._set()

    def _set(self) -> None:
        for name, value in self._values.items():
            self._gauges[name].set(value)

    def _keep_setting(self) -> None:
        while not self._has_ended.wait(_SECONDS_BETWEEN_SETS):
            self._set()

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()


def _gauge(name: str, description: str, run_name: str) -> Gauge:
    gauge = Gauge(name, description, tag_keys=("run",))
    gauge.set_default_tags({"run": run_name})
    return gauge
