"""Connecting to Ray: what a job's processes know of it."""

import os
import socket
import subprocess
import sys

import pytest
import ray

from pipelines.runtime import session
from t3d_core.errors import UserError

SCRIPT = """
import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from pipelines.runtime.session import start_local

start_local(num_cpus=1, include_dashboard=False)
found = ray.get(ray.remote(lambda: canonicalize_bootstrap_address_or_die(None)).remote())
print(found == ray.get_runtime_context().gcs_address, found)
"""


@pytest.fixture(scope="module")
def another_ray(local_ray, tmp_path_factory):
    """What a process with a Ray of its own printed, and its home folder."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": os.getcwd(), "HOME": str(home)}
    return subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True), home


def test_workers_find_the_ray_of_their_job_beside_another_ray_on_the_machine(another_ray):
    child, _ = another_ray
    assert child.stdout.startswith("True "), child.stdout + child.stderr


def test_the_token_that_ray_writes_is_for_its_user_alone(another_ray):
    _, home = another_ray
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


START = """
import ray
from pipelines.runtime.session import start_local

start_local(num_cpus=1, include_dashboard=False)
print(ray.get(ray.remote(lambda: 1).remote()))
"""


@pytest.mark.heavy
def test_a_user_without_a_home_folder_can_start_ray():
    """As in a container that runs with any user's number."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": os.getcwd(), "HOME": "/proc/no/home"}
    child = subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True)
    assert (child.stdout, child.returncode) == ("1\n", 0), child.stderr


def test_a_ray_that_does_not_start_names_what_its_processes_need(monkeypatch):
    """Ray's error where a disk is full or threads are few: it takes Ray half a minute to raise it."""

    def init(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    needs = r"It needs room in \S+/ray \(\d+ MB are free; RAY_TMPDIR names another folder\), .*`ulimit -u`: "
    with pytest.raises(
        UserError, match=rf"Ray does not start .*timed out during startup\..*session_latest/logs\. {needs}"
    ):
        session.start_local()


JOIN = """
import ray
{change}
from pipelines.runtime.session import connect

try:
    connect()
except ValueError as error:
    print(error)
"""


def join(address, change="", **more):
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "RAY_ADDRESS": address} | more
    child = subprocess.run(
        [sys.executable, "-c", JOIN.format(change=change)], env=environment, capture_output=True, text=True
    )
    return child.stdout


def test_a_client_of_another_version_is_told_to_use_the_clusters(local_ray):
    said = join(ray.get_runtime_context().gcs_address, "ray.__version__ = '9.9.9'")
    assert "cannot be joined: Version mismatch" in said
    assert "9.9.9" in said
    assert "run the job with the Ray and Python versions of the cluster" in said


def test_who_has_another_token_is_told_to_look_at_it(local_ray):
    said = join(ray.get_runtime_context().gcs_address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert "cannot be joined" in said
    assert "RAY_AUTH_MODE and the token belong to it" in said


@pytest.mark.heavy
def test_a_cluster_that_does_not_answer_is_named_with_what_to_look_at():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        impatient = "from pipelines.runtime import session; session._SECONDS_TO_ANSWER = 1.0"
        assert f"the Ray cluster at {address} cannot be joined" in join(address, impatient)


@pytest.mark.heavy
def test_an_address_that_is_none_is_named_with_how_to_run_without_it():
    refused = join("nonsense")
    assert "the Ray cluster at nonsense cannot be joined: Invalid address format" in refused
    assert "or unset RAY_ADDRESS to run on this machine alone" in refused
