"""Held-out sets are cut by source, evenly over classes, and leaks are refused."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d_core.datasets import splits
from t3d_core.datasets.records import VideoDataset, VideoRecord
from t3d_core.datasets.splits import (
    carve_by_source,
    carve_test_and_val,
    carve_val,
    check_no_leak,
    cross_validation,
    validate_on,
)


def record(name, *, label="run", source=None, splits=("train",)):
    return VideoRecord(name, f"videos/{name}", label, source or name, splits)


def carve(records, *, fraction=0.25, seed=0):
    return carve_by_source(records, fold=1, split_from="train", split_to="val", fraction=fraction, seed=seed)


def ids_in(records, split):
    return {record.video_id for record in records if record.splits[0] == split}


def people(*, num_people=8, labels=("jump", "run", "walk")):
    return [record(f"{label}_{p}", label=label, source=f"person{p}") for p in range(num_people) for label in labels]


def dataset_of(*records):
    return VideoDataset("set", ("run",), records)


def test_a_source_in_two_splits_of_one_fold_is_refused_by_name():
    leaking = dataset_of(
        record("a", source="anna", splits=("train", "train")), record("b", source="anna", splits=("train", "test"))
    )
    with pytest.raises(ValueError, match="source 'anna' in fold 2 is in train and test"):
        check_no_leak(leaking)


def test_at_most_five_leaks_are_written_out():
    splits = ("train", "val")
    records = [record(f"{s}{split}", source=f"s{s}", splits=(split,)) for s in range(7) for split in splits]
    with pytest.raises(ValueError, match="7 source") as error:
        check_no_leak(dataset_of(*records))
    assert str(error.value).count("in fold 1") == 5


def test_a_source_may_change_sides_between_folds_and_be_unused_beside_its_split():
    check_no_leak(
        dataset_of(
            record("a", source="anna", splits=("train", "test")),
            record("b", source="anna", splits=("train", "test")),
            record("c", source="anna", splits=("unused", "unused")),
        )
    )


def official(*records):
    return VideoDataset("set", ("run", "walk"), records, official_splits=("train", "test"))


def test_a_source_that_the_official_lists_put_on_both_sides_is_counted_in_each_fold():
    records = [record("a", source="film", splits=("train", "train", "unused"))]
    records.append(record("b", label="walk", source="film", splits=("test", "train", "test")))
    assert check_no_leak(official(*records)) == (1, 0, 0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_carved_split_is_never_taken_for_an_official_one(split):
    leaking = official(record("a", source="film", splits=("val",)), record("b", source="film", splits=(split,)))
    with pytest.raises(ValueError, match="source 'film' in fold 1 is in "):
        check_no_leak(leaking)


def test_a_source_of_a_further_split_stays_where_it_is():
    records = [record(f"v{i}", source=f"s{i}") for i in range(10)]
    records += [record(f"t{i}", source=f"s{i}", splits=("test",)) for i in range(8)]
    assert ids_in(carve(records, fraction=0.1), "val") <= {"v8", "v9"}
    with pytest.raises(ValueError, match="at least 2 sources are needed, there are 1"):
        carve([*records, record("t8", source="s8", splits=("test",))])


def test_a_class_of_which_little_can_move_gives_its_share_first():
    # 18 of 20 jumping videos come from films of the test list.
    records = [record(f"jump{i}", label="jump") for i in range(2)]
    records += [record(f"film{i}", label="jump", source="film") for i in range(18)]
    records += [record("test", source="film", splits=("test",)), *(record(f"run{i}") for i in range(20))]
    assert Counter(r.label for r in carve(records, fraction=0.1) if r.splits == ("val",)) == {"jump": 2, "run": 2}


def test_validation_is_carved_in_every_fold_and_no_test_video_moves():
    splits = [("train", "test"), ("test", "train"), ("train", "train"), ("train", "unused")]
    records = [record(f"v{i}{number}", splits=splits[number]) for i in range(4) for number in range(4)]
    carved = carve_val(records, fraction=0.25, seed=0)
    for fold, num_train in enumerate((12, 8)):
        changes = Counter((old.splits[fold], new.splits[fold]) for old, new in zip(records, carved, strict=True))
        num_val = num_train // 4
        assert changes["train", "val"] == num_val
        assert changes["train", "train"] == num_train - num_val
        assert {old for old, new in changes if old != new} == {"train"}


def test_a_validation_share_of_zero_keeps_the_official_lists_and_one_of_all_is_refused():
    records = tuple(people())
    assert carve_val(records, fraction=0, seed=0) == records
    with pytest.raises(ValueError, match="val_fraction"):
        carve_val(records, fraction=1.0, seed=0)


def test_carving_compares_kinds_of_sources_so_that_half_a_million_take_seconds(monkeypatch):
    compared = []
    heappop = splits.heapq.heappop
    monkeypatch.setattr(splits.heapq, "heappop", lambda heap: compared.append(len(heap)) or heappop(heap))
    carve([record(f"v{i}", label=("run", "walk")[i % 2]) for i in range(2000)], fraction=0.5)
    assert len(compared) < 4 * 1000
    assert max(compared) == 2


def test_whole_sources_move():
    carved = carve(people())
    check_no_leak(VideoDataset("set", ("jump", "run", "walk"), carved))
    assert len(ids_in(carved, "val")) == 2 * 3


def test_classes_move_in_equal_shares_when_each_video_is_its_own_source():
    records = [record(f"{label}{i}", label=label) for label, size in (("run", 40), ("walk", 8)) for i in range(size)]
    moved = Counter(r.label for r in carve(records) if r.splits == ("val",))
    assert moved == {"run": 10, "walk": 2}


def test_classes_of_one_video_stay_in_training_while_others_can_give():
    records = [record(f"single{i}", label=f"class{i}") for i in range(10)]
    records += [record(f"many{i}", label="many") for i in range(20)]
    assert {r.label for r in carve(records, fraction=0.2) if r.splits == ("val",)} == {"many"}


def test_another_seed_moves_other_sources():
    assert len({frozenset(ids_in(carve(people(num_people=20), seed=seed), "val")) for seed in range(5)}) > 1


def test_only_the_named_fold_and_split_change():
    records = [record(f"v{i}", splits=("train", "train")) for i in range(4)]
    records.append(record("t", splits=("test", "train")))
    carved = carve_by_source(records, fold=1, split_from="train", split_to="val", fraction=0.5, seed=0)
    assert [r.splits[1] for r in carved] == ["train"] * 5
    assert Counter(r.splits[0] for r in carved) == {"train": 2, "val": 2, "test": 1}
    assert carved[-1] is records[-1]


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["run", "walk", None])), min_size=2, max_size=40),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_any_carving_keeps_sources_whole_and_both_sides_filled_whatever_the_order(pairs, fraction, seed, shuffler):
    records = [record(f"v{i}", label=label, source=source) for i, (source, label) in enumerate(pairs)]
    if len({r.source for r in records}) < 2:
        with pytest.raises(ValueError, match="2 sources are needed"):
            carve(records, fraction=fraction, seed=seed)
        return
    carved = carve(records, fraction=fraction, seed=seed)
    check_no_leak(VideoDataset("set", ("run", "walk"), carved))
    assert ids_in(carved, "train")
    assert ids_in(carved, "val")
    assert [r.video_id for r in carved] == [r.video_id for r in records]
    shuffled = random.Random(shuffler.random()).sample(records, len(records))
    assert ids_in(carve(shuffled, fraction=fraction, seed=seed), "val") == ids_in(carved, "val")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        carve(people(), fraction=fraction)


def test_test_and_val_fractions_are_shares_of_all_videos():
    records = [record(f"v{i}") for i in range(40)]
    carved = carve_test_and_val(records, test_fraction=0.5, val_fraction=0.25, seed=0)
    assert Counter(r.splits[0] for r in carved) == {"train": 10, "test": 20, "val": 10}


def test_fractions_of_zero_carve_nothing():
    records = tuple(people())
    assert carve_test_and_val(records, test_fraction=0, val_fraction=0, seed=0) == records


def test_fractions_that_leave_no_training_are_refused():
    with pytest.raises(ValueError, match=r"together below 1, got 0\.6 and 0\.4"):
        carve_test_and_val(people(), test_fraction=0.6, val_fraction=0.4, seed=0)


def test_cross_validation_tests_every_video_once_and_keeps_sources_whole():
    records = [record(f"v{i}", label=("run", "walk")[i % 2], source=f"person{i // 4}") for i in range(24)]
    folds = cross_validation(records, num_folds=3, val_fraction=0.25, seed=0)
    assert [r.video_id for r in folds] == [r.video_id for r in records]
    assert all(sorted(r.splits).count("test") == 1 for r in folds)
    check_no_leak(VideoDataset("set", ("run", "walk"), folds))
    for fold in range(3):
        assert Counter(r.splits[fold] for r in folds) == {"train": 12, "val": 4, "test": 8}
        assert Counter(r.label for r in folds if r.splits[fold] == "test") == {"run": 4, "walk": 4}
    assert cross_validation(records[::-1], num_folds=3, val_fraction=0.25, seed=0) == folds[::-1]


def test_more_folds_than_sources_are_refused():
    with pytest.raises(ValueError, match="num_folds 3 needs at least as many sources, there are 2"):
        cross_validation([record("a"), record("b")], num_folds=3, val_fraction=0, seed=0)


def test_sources_that_validate_do_so_in_every_fold_and_the_others_are_tested_in_turn():
    records = [record(f"v{i}", label=("run", "walk")[i % 2], source=f"person{i // 4}") for i in range(24)]
    folds = cross_validation(records, num_folds=5, val_fraction=0, seed=0, val_sources=["person2"])
    assert [r.video_id for r in folds] == [r.video_id for r in records]
    assert {r.splits for r in folds if r.source == "person2"} == {("val",) * 5}
    others = [r for r in folds if r.source != "person2"]
    assert all(sorted(r.splits) == ["test", "train", "train", "train", "train"] for r in others)
    assert {tuple({r.source for r in others if r.splits[fold] == "test"}) for fold in range(5)} == {
        (f"person{i}",) for i in (0, 1, 3, 4, 5)
    }
    with pytest.raises(ValueError, match="num_folds 6 needs at least as many sources besides those that validate, the"):
        cross_validation(records, num_folds=6, val_fraction=0, seed=0, val_sources=["person2"])


def test_sources_that_validate_come_out_of_training_alone():
    records = [record("a"), record("b"), record("c", splits=("test",))]
    assert [r.splits[0] for r in validate_on(records, ["b"])] == ["train", "val", "test"]
    with pytest.raises(ValueError, match="group 'c' has split test in the annotations: name groups of split train"):
        validate_on(records, ["c"])
    with pytest.raises(ValueError, match=r"\['a', 'b'\] leave no group to train on"):
        validate_on(records, ["b", "a"])
    with pytest.raises(ValueError, match=r"\['b'\] are not all that validates: group 'd' has split val already"):
        validate_on([*records, record("d", splits=("val",))], ["b"])
