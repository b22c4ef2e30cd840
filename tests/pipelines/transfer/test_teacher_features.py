"""Files of features belong to their shard, teacher and views, or are refused."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.transfer.pair_loader import PairLoader, TeacherView
from pipelines.transfer.teacher_features import FeatureFiles
from t3d_core.video.clip_sampling import ClipView
from tests.pipelines.transfer.feature_pass import copy_of

CLIP = ClipView(num_frames=8, frame_stride=2, crop_size=32, short_side=37, short_video="loop")
VIEW = TeacherView(num_frames=2, crop_size=24, short_side=30, num_views=3)
FILES = FeatureFiles("a" * 64, num_views=3, feature_dim=5)


@pytest.fixture
def index_with_features(first_pass, tmp_path):
    return copy_of(first_pass[0], tmp_path / "copy")


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
    assert any("another version made them" in reason for reason in reasons)


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


def test_damaged_features_are_a_reason_and_no_number(index_with_features):
    index = index_with_features
    path = FILES.file_of(index.shard_paths[index.shard_N[0]])
    content = bytearray(path.read_bytes())
    place = pq.ParquetFile(path).metadata.row_group(int(index.row_N[0])).column(3).data_page_offset
    content[place + 60] ^= 255
    path.write_bytes(content)
    loader = PairLoader(index, CLIP, teacher=replace(VIEW, features=FILES))
    [reason] = loader.random_batch(np.array([0]), [[0]])["reason_B"]
    assert re.search(r"teacher features \S+ row \d+ cannot be read: .*; start again after deleting", reason)
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"teacher features \S+ cannot be read"):
        FILES.missing(index)
