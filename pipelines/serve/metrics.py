"""What a server does is counted in each of its processes, and shown as one page of Prometheus's text format.

Every process has series of its own, with the label `replica`: their sums stay right when one of them starts anew.
"""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The counts of one process.

    Args:
        num_open: gives the number of open requests.
        num_waiting: gives the number of those that wait for a decoder.
    """

    def __init__(self, *, num_open: Callable[[], int], num_waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "t3d_serve_requests", "Requests for predictions, by HTTP status.", ["status"], registry=self._registry
        )
        self.seconds = Histogram(
            "t3d_serve_request_seconds",
            "From the headers of a request to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.views = Counter("t3d_serve_views", "Views that were decoded and scored.", registry=self._registry)
        open_requests = Gauge("t3d_serve_open_requests", "Uploading, waiting or at work.", registry=self._registry)
        open_requests.set_function(num_open)
        waiting = Gauge("t3d_serve_waiting_requests", "Waiting for a decoder.", registry=self._registry)
        waiting.set_function(num_waiting)

    def measured(self) -> list[Metric]:
        """The counts of now; they can be sent to another process."""
        return list(self._registry.collect())


class _Joined(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def metrics_page(measured: dict[str, Sequence[Metric]]) -> bytes:
    """Join the counts of processes, by name of the replica, to the text that Prometheus reads."""
    families: dict[str, Metric] = {}
    for replica, metrics in measured.items():
        for metric in metrics:
            family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    family.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Joined(families.values()))
    return generate_latest(registry)
