"""The official HMDB51 lists become a data set of three folds."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.datasets.hmdb51 import parse_hmdb51_title, read_hmdb51
from t3d_core.datasets.splits import check_no_leak

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"{SHARED_DATA} is not on this machine")

NAME = "{title}_{label}_u_nm_np1_ba_goo_{clip}.avi"


def write_list(folder, label, codes, *, fold):
    """`codes` maps titles to codes; each title gives two clips."""
    lines = [f"{NAME.format(title=t, label=label, clip=clip)} {code} " for t, code in codes.items() for clip in (0, 1)]
    (folder / f"{label}_test_split{fold}.txt").write_text("\n".join(lines) + "\n")


def write_lists(folder):
    """Two classes, two folds; the film Heat is in both classes and leaks between them in fold 1."""
    write_list(folder, "run", {"Heat": 1, "A_#1_[!&]": 2, "C": 0, "D": 1, "E": 1}, fold=1)
    write_list(folder, "run", {"Heat": 1, "A_#1_[!&]": 1, "C": 2, "D": 1, "E": 1}, fold=2)
    write_list(folder, "fall_floor", {"Heat": 2, "F": 1, "G": 1, "H": 1}, fold=1)
    write_list(folder, "fall_floor", {"Heat": 1, "F": 1, "G": 1, "H": 2}, fold=2)
    (folder / "class_list.txt").write_text("run\n")
    return folder


def read(folder, *file_names, **settings):
    return read_hmdb51(folder, file_names=file_names, **settings)


def test_codes_are_splits_and_titles_are_sources_across_classes(tmp_path):
    dataset = read(write_lists(tmp_path))
    assert dataset.class_names == ("fall_floor", "run")
    assert len(dataset.records) == 18
    by_source = {(r.label, r.source): r.splits for r in dataset.records}
    assert by_source["run", "A_#1_[!&]"] == ("test", "train")
    assert by_source["run", "C"] == ("unused", "test")
    assert by_source["run", "Heat"] == ("train", "train")
    assert by_source["fall_floor", "Heat"] == ("test", "train")
    assert dataset.records[0].video_id == "F_fall_floor_u_nm_np1_ba_goo_0"


def test_names_of_videos_and_lists_that_are_not_utf8_are_refused_with_their_place(tmp_path):
    line = NAME.format(title="\u00e9", label="run", clip=0) + " 1\n"
    (tmp_path / "run_test_split1.txt").write_bytes(line.encode("latin-1"))
    with pytest.raises(ValueError, match=r"run_test_split1\.txt, line 1: video '\\xe9_run_.* is not UTF-8"):
        read(tmp_path)
    (tmp_path / os.fsdecode(b"r\xe9_test_split1.txt")).touch()
    with pytest.raises(ValueError, match=r"the name of list 'r\\xe9_test_split1\.txt' is not UTF-8: rename the file"):
        read(tmp_path)


def test_lists_in_utf16_with_tabs_and_copies_of_a_mac_beside_them_are_read(tmp_path):
    before = read(write_lists(tmp_path))
    for path in list(tmp_path.glob("*_split*.txt")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
        path.write_text(path.read_text().replace(" 1", "\t1"), encoding="utf-16")
    assert read(tmp_path) == before


def test_a_video_without_extension_is_found(tmp_path):
    name = "x/F_fall_floor_u_nm_np1_ba_goo_0"
    assert read(write_lists(tmp_path), name).records[0].path == name


def test_films_that_the_lists_put_on_both_sides_in_two_classes_are_counted(tmp_path):
    assert check_no_leak(read(write_lists(tmp_path))) == (1, 0)


def test_validation_is_carved_out_of_films_without_test_clips(tmp_path):
    dataset = read(write_lists(tmp_path), val_fraction=0.3)
    assert check_no_leak(dataset) == (1, 0)
    for fold in range(2):
        held_out = {r.source for r in dataset.records if r.splits[fold] == "val"}
        assert held_out
        assert held_out.isdisjoint(r.source for r in dataset.records if r.splits[fold] in ("train", "test"))


def test_files_are_found_in_class_folders_or_flat_and_missing_ones_keep_the_official_path(tmp_path):
    odd, flat, other = (NAME.format(title=t, label="run", clip=0) for t in ("A_#1_[!&]", "C", "D"))
    dataset = read(write_lists(tmp_path), f"run/{odd}", flat.replace(".avi", ".mp4"))
    paths = {r.video_id: r.path for r in dataset.records}
    assert paths[odd.removesuffix(".avi")] == f"run/{odd}"
    assert paths[flat.removesuffix(".avi")] == flat.replace(".avi", ".mp4")
    assert paths[other.removesuffix(".avi")] == f"run/{other}"


def test_a_video_that_a_fold_does_not_list_is_unused_there(tmp_path):
    write_lists(tmp_path)
    write_list(tmp_path, "run", {"Heat": 1, "C": 2}, fold=2)
    assert {r.splits for r in read(tmp_path).records if r.source == "D"} == {("train", "unused")}


@pytest.mark.parametrize(
    "line",
    [
        "Heat_run_u_nm_np1_ba_goo_0.avi",
        "Heat_run_u_nm_np1_ba_goo_0.avi 3",
        "Heat_walk_u_nm_np1_ba_goo_0.avi 1",
        "_run_u_nm_np1_ba_goo_0.avi 1",
        "Heat.avi 1",
    ],
)
def test_a_bad_line_is_refused_with_its_place(tmp_path, line):
    (tmp_path / "run_test_split1.txt").write_text(f"A_run_f_cm_np12_fr_bad_10.avi 1 \n{line}\n")
    with pytest.raises(ValueError, match=r"run_test_split1\.txt, line 2: expected title_run_"):
        read(tmp_path)


def test_a_video_twice_in_a_list_is_refused(tmp_path):
    (tmp_path / "run_test_split1.txt").write_text("A_run_f_cm_np1_fr_bad_1.avi 1 \n" * 2)
    with pytest.raises(ValueError, match=r"line 2: .* is listed twice"):
        read(tmp_path)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no list such as"):
        read(tmp_path)
    (write_lists(tmp_path) / "run_test_split1.txt").unlink()
    with pytest.raises(ValueError, match=r"run_test_split1\.txt' is missing"):
        read(tmp_path)


ATTRIBUTES = st.tuples(
    st.sampled_from("hufl"),
    st.sampled_from(["nm", "cm"]),
    st.integers(0, 20).map(lambda n: f"np{n}"),
    st.sampled_from(["fr", "ba", "le", "ri"]),
    st.sampled_from(["bad", "med", "goo"]),
    st.integers(0, 99).map(str),
).map("_".join)


@given(
    st.text(st.characters(exclude_characters="/"), min_size=1)
    | st.lists(st.sampled_from(["run", "fall", "floor", "u_nm_np1_ba_goo_0", "_", "#2"]), min_size=1).map("_".join),
    st.sampled_from(["run", "fall_floor", "floor"]),
    ATTRIBUTES,
)
def test_any_title_is_given_back_whatever_it_holds(title, label, attributes):
    assert parse_hmdb51_title(f"{title}_{label}_{attributes}.avi", label=label) == title


@needs_shared_data
class TestOfficialLists:
    ANNOTATIONS = SHARED_DATA / "annotations" / "hmdb51_testTrainMulti_7030_splits"

    def test_each_fold_has_the_published_counts_in_all_classes(self):
        dataset = read(self.ANNOTATIONS)
        assert len(dataset.records) == 6766
        assert len(dataset.class_names) == 51
        for fold in range(3):
            assert Counter(r.splits[fold] for r in dataset.records) == {"train": 3570, "test": 1530, "unused": 1666}
            for split, num_videos in (("train", 70), ("test", 30)):
                counts = Counter(r.label for r in dataset.records if r.splits[fold] == split)
                assert counts == dict.fromkeys(dataset.class_names, num_videos)

    def test_the_lists_keep_a_film_on_one_side_within_each_class_only(self):
        dataset = read(self.ANNOTATIONS)
        assert len({r.source for r in dataset.records}) == 1407
        assert check_no_leak(dataset) == (133, 149, 144)
        for fold in range(3):
            sides = {(r.label, r.source, r.splits[fold]) for r in dataset.records if r.splits[fold] != "unused"}
            assert len(sides) == len({(label, source) for label, source, _ in sides})

    def test_validation_takes_a_tenth_of_training_from_every_class_and_no_film_of_the_test_list(self):
        dataset = read(self.ANNOTATIONS, val_fraction=0.1)
        assert check_no_leak(dataset) == (133, 149, 144)
        for fold in range(3):
            counts = Counter(r.splits[fold] for r in dataset.records)
            assert counts["test"] == 1530
            assert counts["val"] == pytest.approx(357, abs=2)
            assert {r.label for r in dataset.records if r.splits[fold] == "val"} == set(dataset.class_names)
