"""What Prometheus sees of a run on the node where it trains."""

import time
import urllib.request

import ray

from pipelines.prometheus import GAUGES, RunGauges


def metrics():
    """The page that Prometheus reads."""
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as page:
        return [line for line in page.read().decode().splitlines() if line.startswith("ray_t3d_")]


def test_the_newest_point_of_a_run_is_shown_under_its_name(local_ray):
    gauges = RunGauges("mine")
    gauges.show({"throughput/clips_per_second": 2.5, "train/loss": 9.0, "lr": 0.1}, step=10)
    gauges.show({"train/loss": 7.0}, step=20)
    deadline = time.monotonic() + 60  # Ray reports every ten seconds
    while not (shown := metrics()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert all('run="mine"' in line for line in shown)
    values = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in shown}
    assert values == {"ray_t3d_clips_per_second": 2.5, "ray_t3d_loss": 7.0, "ray_t3d_step": 20.0}
    assert {f"ray_{name}" for name, _ in GAUGES.values()} > values.keys() - {"ray_t3d_step"}
