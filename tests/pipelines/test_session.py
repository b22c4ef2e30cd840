"""Connecting to Ray: what a job's processes know of it."""

import os
import subprocess
import sys

SCRIPT = """
import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from pipelines.session import start_local

start_local(num_cpus=1, include_dashboard=False)
found = ray.get(ray.remote(lambda: canonicalize_bootstrap_address_or_die(None)).remote())
print(found == ray.get_runtime_context().gcs_address, found)
"""


def test_workers_find_the_ray_of_their_job_beside_another_ray_on_the_machine(local_ray):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    child = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment | {"PYTHONPATH": os.getcwd()}, capture_output=True, text=True
    )
    assert child.stdout.startswith("True "), child.stdout + child.stderr
