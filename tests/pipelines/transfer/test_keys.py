"""The keys of a run: of which clips, from which statistics, and how many."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.transfer.config import KeysConfig
from pipelines.transfer.keys import load_keys, write_keys
from pipelines.transfer.pair_loader import PairLoader, row_ids
from pipelines.transfer.teacher_features import FeatureFiles
from t3d_core.errors import UserError
from t3d_core.training.correspondence_task import moments_of
from tests.pipelines.transfer.feature_pass import CLIP, FILES, VIEW, pass_over


@pytest.fixture
def made(index, teacher, tmp_path):
    """A loader of the rows with cached features, and a function that makes and loads their keys."""
    pass_over(index, teacher)
    loader = PairLoader(index, CLIP, teacher=replace(VIEW, features=FILES))

    def make(some=loader, **settings):
        path = tmp_path / "keys.safetensors"
        write_keys(path, some, FILES, KeysConfig(dim=3, **settings), target="mean", seed=0)
        return load_keys(path, temperature=0.1)

    return loader, make


def test_a_batch_finds_its_own_keys_in_the_bank(made):
    loader, make = made
    keys = make()
    rows = np.arange(len(loader.index))
    batch = loader.random_batch(rows, [[0, int(row)] for row in rows])
    tensors = {name: torch.from_numpy(np.array(values)) for name, values in batch.items() if name != "reason_B"}
    own_Bd, moments = keys.whitening(tensors["teacher_BD"]), moments_of(tensors)
    num_views = loader.teacher.num_views
    assert len(keys.bank.key_Nd) == num_views * len(rows)
    for own_d, row, start in zip(own_Bd, moments.row_N, moments.start_N, strict=True):
        is_own_N = (keys.bank.row_N == row) & (keys.bank.start_N == start)
        assert is_own_N.any()
        assert torch.isclose(keys.bank.key_Nd[is_own_N], own_d, atol=1e-5).all(dim=1).any()
    assert moments.row_N.tolist() == row_ids(loader.index, rows).tolist()


def test_rows_that_are_held_out_have_no_key(made):
    loader, make = made
    half = loader.index.select(np.arange(len(loader.index)) % 2 == 0)
    keys = make(PairLoader(half, loader.clip, teacher=loader.teacher))
    assert set(keys.bank.row_N.tolist()) == set(row_ids(half, np.arange(len(half))).tolist())
    assert set(keys.bank.row_N.tolist()) < set(row_ids(loader.index, np.arange(len(loader.index))).tolist())


def test_no_more_keys_are_kept_than_the_bank_holds_and_always_the_same(made):
    _, make = made
    few, again = make(bank_size=7), make(bank_size=7)
    assert len(few.bank.key_Nd) <= 7
    assert torch.equal(few.bank.key_Nd, again.bank.key_Nd)
    assert len(few.bank.row_N.unique()) > 1


def test_rows_of_which_none_could_be_read_are_refused(made, monkeypatch):
    _, make = made
    read = FeatureFiles.read_shard
    monkeypatch.setattr(
        FeatureFiles, "read_shard", lambda *given: [row._replace(reason="damaged") for row in read(*given)]
    )
    with pytest.raises(UserError, match=r"^none of \d+ training rows has features of the teacher"):
        make()
