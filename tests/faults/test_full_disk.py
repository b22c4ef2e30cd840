"""The disk of the checkpoints is full: one clear error, nothing lost, and more room is enough: `pytest -m faults`."""

import contextlib
import os
import re
import subprocess

import pytest

from pipelines.training.checkpoints import find_damage
from tests.faults.training_faults import Job, assert_ended_as

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture
def disk(tmp_path):
    """A disk of 4 MB, which has room for four checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this process may not mount a small disk (tmpfs)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("filler", ["checkpoints", "somebody else"])
def test_a_full_disk_is_one_clear_error_and_room_is_all_the_run_needs(filler, disk, tiny_shards, untouched, tmp_path):
    many, every = ("--checkpoint.num_to_keep", "99"), ("--checkpoint.every_steps", "20")
    arguments = ("--epochs", "80", *every, *(many if filler == "checkpoints" else ()))
    with Job(tmp_path, tiny_shards, *arguments, storage=disk) as job:
        job.start()
        if filler == "somebody else":
            job.wait_for_step(50)
            fill(disk / "other")
        status = job.driver.wait(timeout=300)
        last, kept = job.last_line(), job.checkpoints()
        print(last)
        assert status == 1
        assert last.startswith("error: ")
        assert "No space left on device" in last
        assert str(job.folder) in last
        assert re.search("make room.* start .*again with the same --name", last)
        assert len(kept) >= 2
        assert all(find_damage(folder) is None for folder in job.folder.glob("checkpoint_????????"))
        assert not list(job.folder.glob("checkpoint_*.partial"))
        stopped = job.step()
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert job.run(seconds=300) == 0, job.last_line()
        print(f"the disk was full at step {stopped}, checkpoints {kept} were whole")
        assert_ended_as(job, untouched)


def fill(path):
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(os.sysconf("SC_PAGE_SIZE")))
