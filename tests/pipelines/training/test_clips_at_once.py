"""What batch norms and pairs see at once stays the same when a run resumes on other workers."""

import json

import pytest

from pipelines.train.job import run_train
from pipelines.training.clips_at_once import clips_at_once, with_clips_at_once
from pipelines.training.config import ScalingConfig, TrainComputeConfig
from tests.pipelines.training.small_runs import train_config

TWO = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5})


class StoppedError(Exception):
    pass


@pytest.fixture
def start(settings, synthetic_shards, monkeypatch):
    """Starts a run that is interrupted before its first step; gives the settings with which it would train."""
    found = []

    def interrupt(stage, *_):
        found.append(stage.config)
        raise StoppedError

    for name in ("train_here", "train_on_workers"):
        monkeypatch.setattr(f"pipelines.training.run.{name}", interrupt)

    def begin(num_workers, **changes):
        scaling = TWO.model_copy(update={"num_workers": num_workers})
        with pytest.raises(StoppedError):
            run_train(train_config(settings, synthetic_shards, name="mine", scaling=scaling, **changes))
        return found[-1]

    return begin


def test_a_resume_on_fewer_workers_has_the_micro_batches_of_the_first_start(start):
    assert start(2).micro_batch_size == 4
    assert start(0).micro_batch_size == 4
    assert start((1, 2)).micro_batch_size == 4


def test_a_resume_on_more_workers_than_parts_is_refused_with_the_number_that_works(start, settings, synthetic_shards):
    assert start(0).micro_batch_size is None
    assert start(1).micro_batch_size is None
    message = r"began with 8 clips in a forward pass.*: resume it with --scaling.num_workers 1 or fewer"
    with pytest.raises(ValueError, match=message):
        run_train(train_config(settings, synthetic_shards, name="mine", scaling=TWO))


def test_a_run_of_an_older_version_keeps_the_clips_of_the_workers_that_its_recipe_records(
    start, settings, synthetic_shards, tmp_path
):
    start(1)
    record = tmp_path / "runs" / "mine" / "run.json"
    known = json.loads(record.read_text())
    settled = known.pop("clips_at_once")
    record.write_text(json.dumps(known))
    message = r"began with 8 clips in a forward pass.*: resume it with --scaling.num_workers 1 or fewer"
    for _ in range(2):  # the first refusal records what it found
        with pytest.raises(ValueError, match=message):
            run_train(train_config(settings, synthetic_shards, name="mine", scaling=TWO))
        assert json.loads(record.read_text()) == known | {"clips_at_once": settled}
    assert start(0).micro_batch_size is None


def test_workers_that_cannot_have_equal_parts_are_refused_with_a_micro_batch_that_keeps_them_equal(
    settings, synthetic_shards
):
    for num_workers in (3, (1, 3)):
        with pytest.raises(ValueError, match=r"unequal parts.*: add --micro_batch_size 2, or choose another number"):
            train_config(settings, synthetic_shards, scaling=ScalingConfig(num_workers=num_workers))


def test_synchronised_batch_norms_keep_their_number_of_workers(settings, synthetic_shards):
    def config(num_workers):
        return train_config(
            settings,
            synthetic_shards,
            compute=TrainComputeConfig(sync_batch_norm=True),
            scaling=ScalingConfig(num_workers=num_workers, use_gpu=True),
            micro_batch_size=2,
        )

    settled = clips_at_once(config(4))
    assert settled == {"micro_batch_size": 2, "batch_norm_clips": 8}
    assert with_clips_at_once(config(4), settled, run="run 'mine'") == config(4)
    with pytest.raises(ValueError, match=r"batch norms over 8 clips .* changes to 4: .* --scaling.num_workers 4"):
        with_clips_at_once(config(2), settled, run="run 'mine'")
    with pytest.raises(ValueError, match=r"whose number would change with scaling.num_workers \[1, 4\]: give one"):
        config((1, 4))
