"""A teacher's features of fixed views, computed once: they are those of the on-line path, and belong where they lie."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from pipelines.clips.loader import ClipView
from pipelines.shards.index import load_index
from pipelines.transfer import teacher_pass
from pipelines.transfer.config import TeacherCacheConfig
from pipelines.transfer.pair_loader import PairLoader, TeacherView
from pipelines.transfer.teacher_features import FeatureFiles
from pipelines.transfer.teacher_pass import run_teacher_pass
from t3d_core.training.tasks import CorrespondenceTask
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.teacher import FrozenTeacher
from tests.pipelines.damage import damage_row

CLIP = ClipView(num_frames=8, frame_stride=2, crop_size=32, short_side=37, short_video="loop")
VIEW = TeacherView(num_frames=2, crop_size=24, short_side=30, num_views=3)
FILES = FeatureFiles("a" * 64, num_views=3, feature_dim=5)


class ClipColours(nn.Module):
    def forward_features(self, clip_BCTHW):
        return clip_BCTHW.mean(dim=(2, 3, 4))


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return FrozenTeacher(network, feature_dim=5)


def pass_over(index, teacher, files=FILES):
    return run_teacher_pass(PairLoader(index, CLIP, teacher=VIEW), teacher, files, TeacherCacheConfig(num_views=3))


def copy_of(shards, target, *left_out):
    shutil.copytree(shards, target, ignore=shutil.ignore_patterns("videos", *left_out))
    return load_index([target], fold=1, splits=["train"])


@pytest.fixture
def index(synthetic_shards, tmp_path):
    return copy_of(synthetic_shards, tmp_path / "copy", "features")


@pytest.fixture(scope="module")
def first_pass(synthetic_shards, tmp_path_factory, teacher):
    root = tmp_path_factory.mktemp("features") / "copy"
    index = copy_of(synthetic_shards, root, "features")
    return root, pass_over(index, teacher)


@pytest.fixture
def index_with_features(first_pass, tmp_path):
    return copy_of(first_pass[0], tmp_path / "copy")


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


def test_a_pass_that_was_cut_off_goes_on_at_the_first_shard_without_features(index, teacher, monkeypatch):
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


def test_every_row_of_a_shard_has_its_place_though_only_some_are_asked_for(index_with_features):
    index = index_with_features
    for shard, path in enumerate(index.shard_paths):
        ids = pq.read_table(path, columns=["video_id"]).column("video_id").to_pylist()
        side = pq.read_table(FILES.file_of(path)).to_pylist()
        assert [row["video_id"] for row in side] == ids
        asked = set(index.row_N[index.shard_N == shard].tolist())
        for number, row in enumerate(side):
            assert (row["reason"] == "") == (number in asked)
            assert (len(row["starts"]), len(row["features"])) == ((3, 15) if number in asked else (0, 0))


def test_features_of_another_teacher_under_this_ones_name_are_refused_with_both_fingerprints(index_with_features):
    index = index_with_features
    other = replace(FILES, fingerprint="a" * 16 + "b" * 48)
    expected = r"features/a{16}/\d+\.parquet are of another teacher or of other views \(fingerprint a{16}\S+, this run"
    with pytest.raises(ValueError, match=expected):
        other.missing(index)


def test_features_of_another_shard_are_refused_with_both_fingerprints(index_with_features):
    first, second = (FILES.file_of(index_with_features.shard_paths[shard]) for shard in (0, 1))
    shutil.copy(second, first)
    with pytest.raises(
        ValueError, match=r"000000\.parquet are of another shard .*fingerprint \w{16}\.\.\., this one's is"
    ):
        FILES.missing(index_with_features)


def test_features_that_changed_under_a_run_are_told_row_by_row(index_with_features):
    index = index_with_features
    shutil.copy(FILES.file_of(index.shard_paths[1]), FILES.file_of(index.shard_paths[0]))
    row = int(np.flatnonzero(index.shard_N == 0)[0])
    loader = PairLoader(index, CLIP, teacher=replace(VIEW, features=FILES))
    [reason] = loader.random_batch(np.array([row]), [[0]])["reason_B"]
    assert re.search(rf"are of video \S+, but the shard has {index.video_id_N[row]} there", reason)
    row = int(np.flatnonzero(index.shard_N == 2)[0])
    shorter = PairLoader(index, replace(CLIP, num_frames=4), teacher=replace(VIEW, features=FILES))
    reasons = shorter.random_batch(np.full(8, row), [[seed] for seed in range(8)])["reason_B"]
    assert any("made by another version" in reason for reason in reasons)


def test_literal_pairs_take_features_of_another_source(index_with_features):
    index = index_with_features
    loader = PairLoader(index, CLIP, teacher=replace(VIEW, features=FILES, is_literal=True))
    with_frames = PairLoader(index, CLIP, teacher=VIEW)
    rows = np.arange(len(index))
    batch = loader.random_batch(rows, [[3, int(row)] for row in rows])
    assert (batch["reason_B"] == "").all()
    for row, feature_D, is_match in zip(rows, batch["teacher_BD"], batch["is_match_B"], strict=True):
        starts = with_frames.view_batch(np.full(3, row), np.arange(3))["start_B"]
        own = [FILES.read(index, row, view, starts[view : view + 1]) for view in range(3)]
        assert any(np.array_equal(feature_D, mine) for mine in own) == is_match


def test_a_row_that_cannot_be_read_has_a_reason_and_the_others_their_features(index, teacher):
    damage_row(Path(index.shard_paths[index.shard_N[1]]), int(index.row_N[1]))
    assert pass_over(index, teacher) == (3 * len(index), 1)
    loader = PairLoader(index, CLIP, teacher=replace(VIEW, features=FILES))
    batch = loader.random_batch(np.arange(3), [[0, row] for row in range(3)])
    assert [bool(reason) for reason in batch["reason_B"]] == [False, True, False]
    assert batch["teacher_BD"].shape == (3, 5)


def test_a_shard_of_which_nothing_can_be_read_is_tried_again(index, teacher):
    one = index.select(index.shard_N == index.shard_N[0])
    for row in one.row_N:
        damage_row(Path(one.shard_paths[one.shard_N[0]]), int(row))
    assert pass_over(one, teacher) == (3 * len(one), len(one))
    assert FILES.missing(one) == [one.shard_N[0]]
    loader = PairLoader(one, CLIP, teacher=replace(VIEW, features=FILES))
    assert all(loader.random_batch(np.arange(len(one)), [[row] for row in range(len(one))])["reason_B"])


def test_damaged_features_are_a_reason_and_no_number(index_with_features):
    index = index_with_features
    path = FILES.file_of(index.shard_paths[index.shard_N[0]])
    content = bytearray(path.read_bytes())
    place = pq.ParquetFile(path).metadata.row_group(int(index.row_N[0])).column(3).data_page_offset
    content[place + 60] ^= 255
    path.write_bytes(content)
    loader = PairLoader(index, CLIP, teacher=replace(VIEW, features=FILES))
    [reason] = loader.random_batch(np.array([0]), [[0]])["reason_B"]
    assert re.search(
        r"teacher features \S+ row \d+ cannot be read: .*; start the transfer again after deleting", reason
    )
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"teacher features \S+ cannot be read"):
        FILES.missing(index)


def test_features_that_are_not_finite_end_the_pass(index):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    network[2].bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="features that are not finite"):
        pass_over(index, FrozenTeacher(network, feature_dim=5))
    assert len(FILES.missing(index)) == len(np.unique(index.shard_N))


def test_a_full_disk_is_told_with_what_is_kept(index, teacher, monkeypatch):
    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FeatureFiles, "open_file", no_room)
    with pytest.raises(ValueError, match=r"cannot be written to \S+: .*No space left on device\. Those of earlier"):
        pass_over(index, teacher)
