"""What Prometheus sees of a run on the node where it trains."""

import time
import urllib.request

import pytest
import ray

from pipelines.training.prometheus import GAUGES, RunGauges


def shown(run_name):
    """What the page that Prometheus reads says of a run: gauge -> value."""
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as page:
        lines = [line for line in page.read().decode().splitlines() if line.startswith("ray_t3d_")]
    ours = [line for line in lines if f'run="{run_name}"' in line]
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in ours}


def wait_for(expected, run_name, *, seconds):
    deadline = time.monotonic() + seconds
    while shown(run_name) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    assert shown(run_name) == expected


def test_the_newest_point_of_a_run_is_shown_under_its_name(local_ray):
    with RunGauges("mine") as gauges:
        gauges.show({"throughput/clips_per_second": 2.5, "train/loss": 9.0, "lr": 0.1}, step=10)
        gauges.show({"train/loss": 7.0}, step=20)
        expected = {"ray_t3d_clips_per_second": 2.5, "ray_t3d_loss": 7.0, "ray_t3d_step": 20.0}
        wait_for(expected, "mine", seconds=60)  # Ray reports every ten seconds
    assert {f"ray_{name}" for name, _ in GAUGES.values()} > expected.keys() - {"ray_t3d_step"}


@pytest.mark.slow
def test_a_run_that_stands_still_is_shown_until_it_ends(local_ray):
    with RunGauges("still") as gauges:
        gauges.show({}, step=20)
        wait_for({"ray_t3d_step": 20.0}, "still", seconds=60)
        time.sleep(40)  # Ray drops what was not set for twenty
        assert shown("still") == {"ray_t3d_step": 20.0}
    wait_for({}, "still", seconds=60)
