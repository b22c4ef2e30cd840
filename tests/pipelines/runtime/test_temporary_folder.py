"""Which temporary folders a Ray of this machine gets, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
TOO_LONG = "scratch/slurm/users/a.long.user.name/job_12345678.cluster.example.org/tmp"
START = """
import ray
from pipelines.runtime.session import start_local

start_local(num_cpus=1, include_dashboard={dashboard})
print(ray.get(ray.remote(lambda: __import__("tempfile").gettempdir()).remote()))
"""
PREPARE = """
import os
from pipelines.runtime.temporary_folder import prepare_temporary_folders

prepare_temporary_folders()
print(os.environ["TMPDIR"], os.environ.get("RAY_TMPDIR"))
"""


def run(script, *, cwd=None, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("TMPDIR", "RAY_TMPDIR", "RAY_ADDRESS")}
    environment = kept | {"PYTHONPATH": str(REPO)} | variables
    return subprocess.run([sys.executable, "-c", script], cwd=cwd, env=environment, capture_output=True, text=True)


def last_line(done):
    return done.stderr.splitlines()[-1]


@pytest.mark.heavy
@pytest.mark.parametrize("variable", ["TMPDIR", pytest.param("RAY_TMPDIR", marks=pytest.mark.slow)])
def test_a_folder_with_a_long_path_is_used_by_a_link_that_does_not_stay(tmp_path, variable):
    folder = tmp_path / TOO_LONG
    folder.mkdir(parents=True)
    done = run(START.format(dashboard=True), HOME=str(tmp_path), **{variable: str(folder)})
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "too long" in line]
    link = Path(line.split()[-1])
    assert line == f"The path of {folder} is too long for Ray's sockets: Ray reaches it by {link}"
    assert "Failed to start the dashboard" not in done.stderr  # it makes sockets of its own below TMPDIR
    assert list((folder / "ray").glob("session_*/sockets"))
    assert done.stdout.strip() == (str(link) if variable == "TMPDIR" else "/tmp")
    assert not link.parent.exists()


@pytest.mark.heavy
def test_two_jobs_at_once_have_links_of_their_own(tmp_path):
    folder = tmp_path / TOO_LONG
    folder.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": str(REPO), "TMPDIR": str(folder)}
    command = [sys.executable, "-c", PREPARE + "input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    jobs = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    links = [Path(job.stdout.readline().split()[0]) for job in jobs]
    assert links[0] != links[1]
    assert all(link.resolve() == folder and link.parent.stat().st_mode & 0o777 == 0o700 for link in links)
    jobs[0].communicate("\n")
    assert [link.exists() for link in links] == [False, True]
    jobs[1].communicate("\n")
    assert not links[1].exists()


@pytest.mark.heavy
def test_a_tilde_in_rays_variable_is_the_home_folder(tmp_path):
    done = run(PREPARE, cwd=tmp_path, HOME="/tmp", RAY_TMPDIR="~/t3d-test-of-tilde")
    assert done.stdout.split() == ["/tmp", "/tmp/t3d-test-of-tilde"]
    Path("/tmp/t3d-test-of-tilde/ray").rmdir()
    Path("/tmp/t3d-test-of-tilde").rmdir()
    assert not (tmp_path / "~").exists()


@pytest.mark.heavy
@pytest.mark.parametrize("folder", ["", "/proc/no/such/folder"])
def test_a_temporary_folder_that_cannot_be_written_to_is_replaced_as_python_does(tmp_path, folder):
    assert run(PREPARE, cwd=tmp_path, TMPDIR=folder).stdout.split() == ["/tmp", "None"]
    assert list(tmp_path.iterdir()) == []  # Ray itself makes `ray` in the working folder where TMPDIR is empty


@pytest.mark.heavy
def test_a_folder_for_ray_that_cannot_be_written_to_is_refused_with_the_cure(tmp_path):
    (tmp_path / "ray").touch()
    for folder, reason in ((tmp_path, "File exists"), (Path("/proc/no"), "No such file or directory")):
        assert last_line(run(PREPARE, RAY_TMPDIR=str(folder))) == (
            f"t3d_core.errors.UserError: Ray cannot write to {folder}/ray ({reason}): set RAY_TMPDIR to a folder of "
            "your own on a disk of this machine"
        )
