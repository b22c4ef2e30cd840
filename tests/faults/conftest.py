"""Fixtures of the trials of training: shards, and an undisturbed run."""

import pytest

from tests.faults.training_faults import Job, prepare_shards


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory):
    return prepare_shards(tmp_path_factory.mktemp("tiny") / "shards")


@pytest.fixture(scope="session")
def untouched(tiny_shards, tmp_path_factory):
    """A run of 290 steps with one worker."""
    with Job(tmp_path_factory.mktemp("untouched"), tiny_shards, "--epochs", "80") as job:
        assert job.run() == 0, job.last_line()
        return job
