"""A loss that is not finite ends a run at that step for good, and names its clips: `pytest -m faults`."""

import re
from collections import Counter

import pytest

from pipelines.clips.order import TrainOrder
from pipelines.shards.index import load_index
from pipelines.training.checkpoints import find_damage
from tests.faults.training_faults import Job

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step_with_its_clips(tiny_shards, tmp_path):
    # At this learning rate weight decay makes the weights a hundred times larger every step, until they overflow.
    wild = ("--epochs", "80", "--optimizer.lr", "1e6", "--schedule.kind", "constant", "--checkpoint.every_steps", "1")
    with Job(tmp_path, tiny_shards, *wild) as job:
        assert job.run(seconds=300) == 1
        last, (status, points) = job.last_line(), job.tracked()
        print(last)
        stopped = int(re.search(r"^error: the (?:loss|gradient) is not finite at step (\d+) \(epoch", last)[1])
        assert stopped > 2, "there were good steps before"
        assert [step for step, _ in job.losses()] == list(range(1, stopped)), "it was not started again"
        assert (status, points) == ("FAILED", job.losses())
        named = re.search(r"; clips of that step: (.*?)\. The last checkpoint is (\S+)\. ", last)
        index = load_index([tiny_shards], fold=1, splits=["train"])
        rows, _ = TrainOrder(len(index), 8, seed=0).rows(stopped - 1)
        assert Counter(named[1].split(", ")) == Counter(index.video_id_N[row] for row in rows)
        assert named[2] == str(job.folder / f"checkpoint_{stopped - 1:08d}")
        assert find_damage(job.folder / f"checkpoint_{stopped - 1:08d}") is None
        assert not (job.folder / "model.safetensors").exists()
        assert job.run(seconds=300) == 1
        assert job.last_line() == last, "started again, it reports the same"
