"""A teacher's features of fixed views, computed once: they are those of the on-line path, and belong where they lie."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from pipelines.shards.index import load_index
from pipelines.transfer import teacher_pass
from pipelines.transfer.pair_loader import PairLoader, TeacherView
from pipelines.transfer.teacher_features import FeatureFiles
from pipelines.transfer.teacher_pass import TeacherActor
from t3d_core.training.correspondence_task import CorrespondenceTask
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.teacher import FrozenTeacher
from t3d_core.video.clip_sampling import ClipView
from tests.pipelines.damage import damage_row
from tests.pipelines.transfer.feature_pass import pass_over

CLIP = ClipView(num_frames=8, frame_stride=2, crop_size=32, short_side=37, short_video="loop")
VIEW = TeacherView(num_frames=2, crop_size=24, short_side=30, num_views=3)
FILES = FeatureFiles("a" * 64, num_views=3, feature_dim=5)


class ClipColours(nn.Module):
    def forward_features(self, clip_BCTHW):
        return clip_BCTHW.mean(dim=(2, 3, 4))


@pytest.fixture
def in_this_process(monkeypatch):
    """The pass without a pool of actors: what becomes of its batches does not depend on who computed them."""

    def batches(loader, teacher, pieces, config):
        actor = TeacherActor(teacher, use_gpu=config.use_gpu)
        return (actor.with_features(loader.view_batch(piece.rows, piece.views)) for piece in pieces)

    monkeypatch.setattr(teacher_pass, "_feature_batches", batches)


def test_training_on_cached_features_is_training_with_the_teacher_on_the_same_views(first_pass, teacher):
    root, outcome = first_pass
    index = load_index([root], fold=1, splits=["train"])
    assert outcome == (3 * len(index), 0)
    rows, seeds = np.arange(len(index)), [[7, n] for n in range(len(index))]
    torch.manual_seed(1)
    net = CorrespondenceNet(ClipColours(), student_dim=3, teacher_dim=5)
    found = {}
    for name, view in (("teacher", VIEW), ("features", replace(VIEW, features=FILES))):
        batch = PairLoader(index, CLIP, teacher=view).random_batch(rows, seeds)
        assert ("teacher_BD" in batch) == (name == "features")
        tensors = {key: torch.from_numpy(value) for key, value in batch.items() if key != "reason_B"}
        tensors["clip_BCTHW"] = tensors.pop("clip_BTHWC").permute(0, 4, 1, 2, 3).float()
        task = CorrespondenceTask(net, teacher if name == "teacher" else None)
        found[name] = (tensors["clip_BCTHW"], task.teacher_features(tensors), task(net, tensors).loss)
    for online, cached in zip(*found.values(), strict=True):
        torch.testing.assert_close(cached, online)
    assert found["features"][1].std(dim=0).min() > 0


def test_a_teacher_in_this_process_reserves_nothing_and_gives_the_features_of_a_pool(
    first_pass, index, teacher, monkeypatch
):
    monkeypatch.setattr(teacher_pass.pools, "check_workers_fit", lambda *_: pytest.fail("nothing is reserved"))
    assert pass_over(index, teacher, num_workers=0) == (3 * len(index), 0)
    root, _ = first_pass
    for path in map(Path, index.shard_paths):
        ours, of_pool = (pq.read_table(FILES.file_of(str(shard))) for shard in (path, root / "shards" / path.name))
        assert ours.equals(of_pool)


@pytest.mark.usefixtures("in_this_process")
def test_an_interrupted_pass_resumes_at_the_first_shard_without_features(index, teacher, monkeypatch):
    written = []
    write = teacher_pass._write

    def write_two(*arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments[1])
        return write(*arguments)

    monkeypatch.setattr(teacher_pass, "_write", write_two)
    with pytest.raises(KeyboardInterrupt):
        pass_over(index, teacher)
    monkeypatch.setattr(teacher_pass, "_write", write)
    assert written == FILES.missing(index.select(np.isin(index.shard_N, written))) + written
    rest = index.select(~np.isin(index.shard_N, written))
    assert FILES.missing(index) == np.unique(rest.shard_N).tolist()
    assert pass_over(index, teacher) == (3 * len(rest), 0)
    assert pass_over(index, teacher) == (0, 0)


def test_a_row_that_cannot_be_read_has_a_reason_and_the_others_their_features(index, teacher):
    damage_row(Path(index.shard_paths[index.shard_N[1]]), int(index.row_N[1]))
    assert pass_over(index, teacher) == (3 * len(index), 1)
    loader = PairLoader(index, CLIP, teacher=replace(VIEW, features=FILES))
    batch = loader.random_batch(np.arange(3), [[0, row] for row in range(3)])
    assert [bool(reason) for reason in batch["reason_B"]] == [False, True, False]
    assert batch["teacher_BD"].shape == (3, 5)


@pytest.mark.usefixtures("in_this_process")
def test_a_shard_of_which_nothing_can_be_read_is_tried_again(index, teacher):
    one = index.select(index.shard_N == index.shard_N[0])
    for row in one.row_N:
        damage_row(Path(one.shard_paths[one.shard_N[0]]), int(row))
    assert pass_over(one, teacher) == (3 * len(one), len(one))
    assert FILES.missing(one) == [one.shard_N[0]]
    loader = PairLoader(one, CLIP, teacher=replace(VIEW, features=FILES))
    assert all(loader.random_batch(np.arange(len(one)), [[row] for row in range(len(one))])["reason_B"])


@pytest.mark.usefixtures("in_this_process")
def test_features_that_are_not_finite_end_the_pass(index):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    network[2].bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="features that are not finite"):
        pass_over(index, FrozenTeacher(network, feature_dim=5))
    assert len(FILES.missing(index)) == len(np.unique(index.shard_N))


@pytest.mark.usefixtures("in_this_process")
def test_a_full_disk_is_reported_with_what_is_kept(index, teacher, monkeypatch):
    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FeatureFiles, "open_file", no_room)
    with pytest.raises(ValueError, match=r"cannot be written to \S+: .*No space left on device\. Those of earlier"):
        pass_over(index, teacher)
