"""What the transfer trains on: the teacher's pixels, the rows of a pass."""

import numpy as np
import torch

from pipelines.networks.weights import card_of
from pipelines.shards.index import load_index
from pipelines.shards.selection import hold_out
from pipelines.transfer.stage import CorrespondenceStage, teacher_of


def test_a_teacher_of_ones_own_has_the_normalisation_of_the_recipe(exported):
    teacher = teacher_of(exported(scale=2.0))
    white_BTHWC = torch.full((1, 4, 32, 32, 3), 255, dtype=torch.uint8)
    # 2 * (1 - mean) / std of each colour.
    torch.testing.assert_close(teacher(white_BTHWC), torch.tensor([[2.0, 1.5, 1.0]]))


def test_sources_with_many_rows_do_not_crowd_out_the_held_out_ones_either(small_run, weizmann_shards, monkeypatch):
    """Ten rows of each person: of two held out, three rows a person and pass are looked at, others in the next pass."""
    monkeypatch.setattr("pipelines.transfer.stage.stream", lambda load, batches, **_: map(load, batches))
    config = small_run(
        data={"shards": (weizmann_shards,), "rows_per_source": 3, "holdout_clips_per_row": 2}, checks={"max_clips": 5}
    )
    card = card_of(config.model, config.clip, class_names=())
    train_index, val_index = hold_out(load_index([weizmann_shards], fold=1, splits=["train"]), fraction=0.4, seed=0)
    stage = CorrespondenceStage(config, card, train_index, val_index)
    source_B = np.concatenate([batch["source_B"] for batch in stage.validation_batches(rank=0, world_size=1)])
    assert [np.unique(part, return_counts=True)[1].tolist() for part in (source_B[:6], source_B[6:])] == [[3, 3]] * 2
    assert stage.order.rows_a_pass == 9
