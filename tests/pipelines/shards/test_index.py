import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.shards.index import load_index, num_listed
from pipelines.shards.reading import describe_skipped
from pipelines.shards.selection import drawn_sources, hold_out, share_of_classes, some_sources
from tests.pipelines.damage import changed_videos, cut_off, damage_row, damage_splits, flip, without_fps


@pytest.fixture
def shards(synthetic_shards, tmp_path):
    """A copy, to be damaged: 5 shards of up to 10 rows."""
    return shutil.copytree(synthetic_shards, tmp_path / "copy", ignore=shutil.ignore_patterns("videos"))


def shard_file(folder, shard):
    return folder / "shards" / f"{shard:06d}.parquet"


def edit(folder, **changes):
    """Write a part of `dataset.json` anew."""
    file = folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def keep_in_split(folder, split, shards_kept):
    """Leave the rows of `split` in some shards alone: in all others they become rows of `train`."""

    def moved(splits, shard):
        return ["train"] if splits == [split] and int(shard[:6]) not in shards_kept else splits

    with changed_videos(folder) as videos:
        for video in videos:
            video["splits"] = moved(video["splits"], video["shard"])


def test_a_source_has_one_name_in_every_index_of_its_data(synthetic_shards):
    of_test, of_all = (
        load_index([synthetic_shards], fold=1, splits=splits) for splits in (["test"], ["train", "val", "test"])
    )
    for index in (of_test, of_all, of_all.select(np.arange(3, 7))):
        names = index.source_names[index.source_N]
        assert list(names) == [f"synthetic/{video_id}" for video_id in index.video_id_N]


def test_a_missing_and_a_cut_off_shard_are_left_out_and_recorded_with_their_rows(shards, caplog):
    whole, listed = load_index([shards], fold=1, splits=["train"]), num_listed([shards], fold=1, split="train")
    shard_file(shards, 1).unlink()
    made_bytes = shard_file(shards, 3).stat().st_size
    cut_off(shard_file(shards, 3))
    index = load_index([shards], fold=1, splits=["train"])
    assert sorted(set(whole.video_id_N[~np.isin(whole.shard_N, [1, 3])])) == sorted(index.video_id_N)
    assert index.shard_paths == whole.shard_paths, "a shard keeps its number"
    assert [index.frames(row) for row in range(len(index))] == [
        whole.frames(row) for row in np.flatnonzero(~np.isin(whole.shard_N, [1, 3]))
    ]
    assert [(s.shard, s.path) for s in index.skipped] == [(n, str(shard_file(shards, n))) for n in (1, 3)]
    assert [s.num_rows for s in index.skipped] == [(whole.shard_N == shard).sum() for shard in (1, 3)]
    assert index.skipped[0].reason == "is missing"
    assert index.skipped[1].reason == f"has {made_bytes - 100:,} bytes instead of {made_bytes:,}"
    assert num_listed([shards], fold=1, split="train") == listed == len(whole)
    [line] = describe_skipped(index.skipped)
    assert line.startswith(
        f"LEFT OUT: {len(whole) - len(index)} rows of 2 shards: {shard_file(shards, 1)} is missing; "
    )
    assert f"Split train of fold 1: {line}" in caplog.text
    assert all(part.skipped == index.skipped for part in hold_out(index, fraction=0.2, seed=0))


def test_a_cut_off_shard_without_rows_of_the_split_is_not_missed(shards, caplog):
    keep_in_split(shards, "val", {0})
    cut_off(shard_file(shards, 3))
    index = load_index([shards], fold=1, splits=["val"])
    assert len(index) > 0
    assert (index.skipped, describe_skipped(index.skipped), caplog.text) == ((), [], "")


def test_shards_of_a_second_folder_are_numbered_after_those_of_the_first(shards, synthetic_shards):
    cut_off(shard_file(shards, 2))
    index = load_index([synthetic_shards, shards], fold=1, splits=["train"])
    assert [index.shard_paths[skipped.shard] for skipped in index.skipped] == [str(shard_file(shards, 2))]
    assert index.skipped[0].shard == 7


def test_a_folder_none_of_whose_shards_is_whole_is_refused(shards, synthetic_shards):
    for shard in range(5):
        cut_off(shard_file(shards, shard))
    with pytest.raises(ValueError, match=r"all 5 shards of .*copy are missing or damaged: .*000000.parquet has"):
        load_index([synthetic_shards, shards], fold=1, splits=["train"])


def test_the_index_is_what_the_rows_of_the_shards_say(weizmann_shards):
    index = load_index([weizmann_shards], fold=1, splits=["train", "val", "test"])
    shards = [pq.read_table(path) for path in index.shard_paths]
    assert [len(table) for table in shards] == np.bincount(index.shard_N).tolist()
    rows = pa.concat_tables(shards).to_pylist()
    assert index.row_N.tolist() == [row for table in shards for row in range(len(table))]
    for name in ("video_id", "frame_offset", "num_frames", "height", "width"):
        assert getattr(index, f"{name}_N").tolist() == [row[name] for row in rows]
    assert index.key_distance_N.tolist() == [row["key_distance"] or 0 for row in rows]
    assert index.is_h264_N.tolist() == [row["encoding"] == "h264" for row in rows]
    assert [index.class_names[label] for label in index.label_N] == [row["label"] for row in rows]
    assert len(set(zip(index.source_N, (row["source"] for row in rows), strict=True))) == index.source_N.max() + 1


def test_a_folder_of_another_layout_is_refused_with_the_cure(shards):
    edit(shards, layout=1)
    with pytest.raises(
        ValueError, match=r"copy was prepared by another version .*layout 1, not 2.* again into another"
    ):
        load_index([shards], fold=1, splits=["train"])


def test_labels_that_are_no_class_are_refused_with_their_number(shards):
    names = json.loads((shards / "dataset.json").read_text())["class_names"]
    edit(shards, class_names=names[1:])
    with pytest.raises(
        ValueError, match=rf"copy holds labels that are not among the 7 classes .*'{names[0]}' \(\d videos"
    ):
        load_index([shards], fold=1, splits=["train"])


def test_labels_beside_unlabelled_shards_are_known_though_not_used(shards, synthetic_shards):
    """Labelled and unlabelled folders together serve the transfer."""
    edit(shards, class_names=[])
    with changed_videos(shards) as videos:
        for video in videos:
            video["label"] = None
    index = load_index([synthetic_shards, shards], fold=1, splits=["train"])
    assert index.class_names == ()
    assert set(index.label_N) == {-1}


def test_an_empty_split_is_refused_with_what_is_there_instead(shards):
    keep_in_split(shards, "val", set())
    counts = r"fold 1 test: 10, fold 1 train: 38: choose another split or fold"
    with pytest.raises(
        ValueError, match=rf"no row of split val in fold 1 can be read from .*copy; existing rows: {counts}"
    ):
        load_index([shards], fold=1, splits=["val"])
    assert len(load_index([shards], fold=1, splits=["val"], may_be_empty=True)) == 0


def test_a_split_that_was_lost_is_not_an_empty_one(shards):
    keep_in_split(shards, "val", {3})
    shard_file(shards, 3).unlink()
    with pytest.raises(
        ValueError, match=r"no row of split val .* LEFT OUT: \d rows of 1 shards: .*3.parquet is missing"
    ):
        load_index([shards], fold=1, splits=["val"], may_be_empty=True)


def test_a_damaged_row_costs_no_other(shards):
    damage_row(shard_file(shards, 0), 4)
    index = load_index([shards], fold=1, splits=["train", "val", "test"])
    assert (len(index), index.skipped) == (48, ())
    [row] = np.flatnonzero((index.shard_N == 0) & (index.row_N == 4))
    with pytest.raises(ValueError, match="row 4 cannot be read"):
        index.frames(row)
    assert all(index.frames(other) for other in range(48) if other != row)


def test_frame_rates_are_in_the_tables_and_no_shard_is_opened_for_them(shards, monkeypatch):
    monkeypatch.setattr("pipelines.shards.index.read_fps", lambda path: pytest.fail(f"{path} is opened"))
    assert set(load_index([shards], fold=1, splits=["train"], has_fps=True).fps_N) == {25.0}


@pytest.mark.parametrize("some", [None, ["000001.parquet", "000003.parquet"]])
def test_frame_rates_that_older_tables_lack_come_from_the_shards_where_they_are_needed(shards, some, monkeypatch):
    without_fps(shards / "videos.parquet", shards=some)
    without = load_index([shards], fold=1, splits=["train"])
    lack_N = np.isin(without.shard_N, [1, 3]) if some else np.ones(len(without), bool)
    assert np.isnan(without.fps_N).tolist() == lack_N.tolist()
    index = load_index([shards], fold=1, splits=["train"], has_fps=True)
    assert set(index.fps_N) == {25.0}
    assert index.fingerprint() == without.fingerprint(), "a run of before is resumed"
    rates = np.arange(1.0, 11.0)
    monkeypatch.setattr("pipelines.shards.index.read_fps", lambda path: rates)
    read = load_index([shards], fold=1, splits=["train"], has_fps=True)
    assert read.fps_N[lack_N].tolist() == rates[read.row_N[lack_N]].tolist(), "each row has its own"


def test_folders_of_both_versions_are_read_together(shards, synthetic_shards):
    without_fps(shards / "videos.parquet")
    index = load_index([synthetic_shards, shards], fold=1, splits=["train"], has_fps=True)
    assert set(index.fps_N) == {25.0}


def test_a_shard_whose_frame_rates_cannot_be_read_is_named_with_the_cure(shards):
    without_fps(shards / "videos.parquet")
    path = shard_file(shards, 0)
    path.write_bytes(b"0" * path.stat().st_size)
    with pytest.raises(ValueError, match=r"frame rates of shard .*0.parquet cannot be read: .*run jobs/prepare.py"):
        load_index([shards], fold=1, splits=["train"], has_fps=True)
    assert len(load_index([shards], fold=1, splits=["train"])) > 0


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf")])
def test_a_video_with_an_impossible_frame_rate_is_named_with_the_cure_where_rates_are_needed(shards, rate):
    with changed_videos(shards) as videos:
        [video, *_] = [video for video in videos if video["splits"] == ["train"]]
        video["rows"][0]["fps"] = rate
    message = rf"1 of 29 rows have .* such as video {video['video_id']} with {rate:g} .*: take these videos out"
    with pytest.raises(ValueError, match=message):
        load_index([shards], fold=1, splits=["train"], has_fps=True)
    assert len(load_index([shards], fold=1, splits=["train"])) == 29


@pytest.mark.parametrize("name", ["dataset.json", "videos.parquet"])
def test_damaged_tables_are_refused_with_the_cure(shards, name):
    if name == "dataset.json":
        flip(shards / name, 0)
    else:
        damage_splits(shards / name)
    with pytest.raises(ValueError, match=rf"{name} cannot be read \(.*\): run jobs/prepare.py again after deleting it"):
        num_listed([shards], fold=1, split="val") if name.startswith("videos") else load_index(
            [shards], fold=1, splits=["train"]
        )


def test_a_share_of_the_classes_takes_as_much_of_each_and_the_same_rows_in_every_run(synthetic_shards):
    index = load_index([synthetic_shards], fold=1, splits=["train"])
    half, more = share_of_classes(index, 0.5), share_of_classes(index, 0.8)
    for label in np.unique(index.label_N):
        counts = [int((part.label_N == label).sum()) for part in (index, half, more)]
        assert counts[1:] == [round(0.5 * counts[0]), round(0.8 * counts[0])]
    assert set(half.video_id_N) < set(more.video_id_N) < set(index.video_id_N)
    shuffled = index.select(np.random.default_rng(0).permutation(len(index)))
    assert set(share_of_classes(shuffled, 0.5).video_id_N) == set(half.video_id_N)
    assert len(share_of_classes(index, 1e-6)) == len(index.class_names)


def test_folds_train_on_few_sources_in_turn_and_more_of_them_include_fewer(synthetic_shards):
    whole = load_index([synthetic_shards], fold=1, splits=["train"])
    names = [str(name) for name in whole.source_names[[20, 3, 11, 7, 15]]]  # in an order that is not that of names

    def taken(fold, num_sources, tested):
        index = whole.select(~np.isin(whole.source_N, np.flatnonzero(np.isin(whole.source_names, [*tested[fold - 1]]))))
        part = some_sources(index, num_sources, fold=fold, tested=tested)
        return {str(name) for name in part.source_names[np.unique(part.source_N)]}

    tested = [{name} for name in names]
    assert [taken(fold, 1, tested) for fold in range(1, 6)] == [{name} for name in [*names[1:], names[0]]]
    assert taken(4, 2, tested) == {names[4], names[0]}
    never_tested = min({*map(str, whole.source_names)} - {*names})
    assert taken(4, 5, tested) == {*names} - {names[3]} | {never_tested}
    pairs = [{names[0], names[1]}, {names[2], names[3]}, {names[4]}]
    assert taken(3, 1, pairs) == {min(pairs[0])}
    assert taken(3, 1, pairs) < taken(3, 2, pairs) == pairs[0] < taken(3, 3, pairs) == pairs[0] | {min(pairs[1])}
    with pytest.raises(
        ValueError, match=r"data.num_sources 99 is more than the \d\d source videos that fold 2 has to tr"
    ):
        taken(2, 99, pairs)


def test_an_unfinished_prepare_is_refused_with_the_cure(synthetic_shards, tmp_path):
    shutil.copytree(synthetic_shards, tmp_path / "copy")
    (tmp_path / "copy" / "videos.parquet").unlink()
    with pytest.raises(ValueError, match=r"is not finished: run jobs/prepare.py again"):
        load_index([tmp_path / "copy"], fold=1, splits=["train"])


def test_a_fold_that_does_not_exist_is_refused(synthetic_shards):
    with pytest.raises(ValueError, match=r"data.fold 2 does not exist.*folds 1..1"):
        load_index([synthetic_shards], fold=2, splits=["train"])


def test_the_inner_shards_folder_is_taken_too(synthetic_shards):
    whole = load_index([synthetic_shards], fold=1, splits=["train"])
    inner = load_index([synthetic_shards / "shards"], fold=1, splits=["train"])
    assert whole.video_id_N.tolist() == inner.video_id_N.tolist()


def test_more_drawn_sources_include_fewer_with_all_their_rows(weizmann_shards):
    index = load_index([weizmann_shards], fold=1, splits=["train"])
    two, four = drawn_sources(index, 2), drawn_sources(index, 4)
    assert set(two.video_id_N) < set(four.video_id_N) < set(index.video_id_N)
    assert len(two) == sum(np.isin(index.source_N, np.unique(two.source_N)))
    assert set(drawn_sources(index.select(np.arange(len(index))[::-1]), 2).video_id_N) == set(two.video_id_N)
    with pytest.raises(ValueError, match=r"data\.num_sources 6 is more than the 5 source videos that are not held out"):
        drawn_sources(index, 6)
