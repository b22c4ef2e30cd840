"""The official UCF101 lists become a data set of three folds."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.datasets.splits import check_no_leak
from t3d_core.datasets.ucf101 import parse_ucf101_name, read_ucf101
from t3d_core.datasets.video_files import is_video_name

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"{SHARED_DATA} is not on this machine")

RUN, STAND = "Run/v_Run_g{:02d}_c01.avi", "HandstandPushups/v_HandStandPushups_g{:02d}_c01.avi"


def write_lists(folder, **changes):
    """Groups 1 to 6 of two classes; fold k tests groups 2 k - 1 and 2 k; `changes` replace the lines of a list."""
    lists = {"classInd": ["1 HandstandPushups", "2 Run"]}
    for fold in (1, 2, 3):
        tested = (2 * fold - 1, 2 * fold)
        lists[f"testlist0{fold}"] = [name.format(g) for name in (STAND, RUN) for g in tested]
        lists[f"trainlist0{fold}"] = [
            f"{name.format(g)} {number}"
            for number, name in ((1, STAND), (2, RUN))
            for g in range(1, 7)
            if g not in tested
        ]
    for name, lines in (lists | changes).items():
        (folder / f"{name}.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return folder


def read(folder, *file_names, **settings):
    return read_ucf101(folder, file_names=file_names, **settings)


def test_three_folds_classes_and_groups_are_read_and_missing_files_keep_the_official_path(tmp_path):
    dataset = read(write_lists(tmp_path))
    assert dataset.class_names == ("HandstandPushups", "Run")
    assert len(dataset.records) == 12
    first, last = dataset.records[0], dataset.records[-1]
    assert (first.video_id, first.label, first.source) == (
        "v_HandStandPushups_g01_c01",
        "HandstandPushups",
        "HandstandPushups/g01",
    )
    assert first.path == STAND.format(1)
    assert first.splits == ("test", "train", "train")
    assert (last.label, last.source, last.splits) == ("Run", "Run/g06", ("train", "train", "test"))
    assert check_no_leak(dataset) == (0, 0, 0)


def test_files_are_found_by_name_in_any_folder_case_and_extension(tmp_path):
    names = ("v_Run_g01_c01.avi", "x/Run/v_Run_g02_c01.mp4", "v_handstandpushups_g01_c01.MP4", "other.mp4")
    dataset = read(write_lists(tmp_path), *names)
    assert {r.path for r in dataset.records if r.path in names} == set(names[:3])


def test_a_list_in_other_case_names_the_same_videos(tmp_path):
    other_case = [STAND.format(g).replace("HandS", "Hands") for g in (3, 4)] + [RUN.format(g) for g in (3, 4)]
    dataset = read(write_lists(tmp_path, testlist02=other_case))
    assert len(dataset.records) == 12
    assert {r.splits for r in dataset.records if r.source == "HandstandPushups/g03"} == {("train", "test", "train")}


def test_a_video_in_no_list_of_a_fold_is_unused_there(tmp_path):
    dataset = read(write_lists(tmp_path, testlist02=[RUN.format(g) for g in (3, 4)]))
    assert {r.splits for r in dataset.records if r.source == "HandstandPushups/g04"} == {("train", "unused", "train")}


def test_validation_is_carved_by_group_in_every_fold_and_test_stays(tmp_path):
    official, carved = (read(write_lists(tmp_path), val_fraction=fraction, seed=3) for fraction in (0.0, 0.25))
    check_no_leak(carved)
    for fold in range(3):
        assert Counter(r.splits[fold] for r in carved.records) == {"train": 6, "val": 2, "test": 4}
        assert [r.splits[fold] == "test" for r in carved.records] == [
            r.splits[fold] == "test" for r in official.records
        ]
    assert read(tmp_path, val_fraction=0.25, seed=3) == carved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classInd": ["HandstandPushups", "2 Run"]}, r"classInd\.txt, line 1: expected a number and a class name"),
        ({"testlist01": [RUN.format(1), "Walk/v_Walk_g01_c01.avi"]}, r"testlist01\.txt, line 2: .* of a listed class"),
        ({"testlist01": ["Run/run_1.avi"]}, r"testlist01\.txt, line 1: expected Class/v_Class_g01_c01\.avi"),
        ({"trainlist01": [f"{RUN.format(3)} 1"]}, r"trainlist01\.txt, line 1: class number '1', but Run is 2"),
        (
            {"testlist03": [RUN.format(1)]},
            r"testlist03\.txt, line 1: 'Run/v_Run_g01_c01\.avi' is already in a list of fold 3",
        ),
        (
            {"testlist01": [RUN.format(1).replace("c01", "c02")], "trainlist01": [f"{RUN.format(1)} 2"]},
            "source 'Run/g01' in fold 1",
        ),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read(write_lists(tmp_path, **changes))


def test_a_missing_list_is_named(tmp_path):
    (write_lists(tmp_path) / "testlist02.txt").unlink()
    with pytest.raises(ValueError, match=r"testlist02\.txt' is not a file"):
        read(tmp_path)


@given(
    st.from_regex(r"[A-Za-z][A-Za-z_]*", fullmatch=True),
    st.integers(1, 99),
    st.integers(1, 99),
    st.sampled_from(["avi", "mp4", "AVI"]),
    st.sampled_from(["", "Class/", "a/b/"]),
)
def test_any_official_name_gives_back_its_class_and_group(label, group, clip, extension, folder):
    name = parse_ucf101_name(f"{folder}v_{label}_g{group:02d}_c{clip:02d}.{extension}")
    assert name == (label, f"g{group:02d}")


@given(st.text(max_size=30))
def test_other_names_are_no_videos_of_ucf101(text):
    assert parse_ucf101_name(f"w_{text}") is None


@needs_shared_data
class TestOfficialLists:
    ANNOTATIONS = SHARED_DATA / "annotations" / "ucfTrainTestlist"

    def test_each_fold_has_the_published_counts_in_all_classes_and_no_group_on_both_sides(self):
        dataset = read(self.ANNOTATIONS)
        assert len(dataset.records) == 13320
        assert len(dataset.class_names) == 101
        for fold, counts in enumerate(((9537, 3783), (9586, 3734), (9624, 3696))):
            assert Counter(r.splits[fold] for r in dataset.records) == dict(zip(("train", "test"), counts, strict=True))
            for split in ("train", "test"):
                assert {r.label for r in dataset.records if r.splits[fold] == split} == set(dataset.class_names)
        assert check_no_leak(dataset) == (0, 0, 0)

    def test_every_class_has_twenty_five_groups_of_which_a_fold_tests_seven(self):
        groups = defaultdict(set)
        for record in read(self.ANNOTATIONS).records:
            groups[record.label].add((record.source, record.splits[0]))
        assert {len(pairs) for pairs in groups.values()} == {25}
        assert {sum(split == "test" for _, split in pairs) for pairs in groups.values()} == {7}

    def test_validation_takes_a_tenth_of_training_from_every_class_and_no_test_video(self):
        official, carved = read(self.ANNOTATIONS), read(self.ANNOTATIONS, val_fraction=0.1)
        assert check_no_leak(carved) == (0, 0, 0)
        for fold, num_train in enumerate((9537, 9586, 9624)):
            val = [r for r in carved.records if r.splits[fold] == "val"]
            assert len(val) == pytest.approx(0.1 * num_train, abs=4)
            assert {r.label for r in val} == set(carved.class_names)
            for old, new in zip(official.records, carved.records, strict=True):
                assert new.splits[fold] == old.splits[fold] or (old.splits[fold], new.splits[fold]) == ("train", "val")

    def test_all_ninety_eight_clips_at_hand_are_found(self):
        root = SHARED_DATA / "ucf101_mixed"
        names = {str(p.relative_to(root)) for p in root.rglob("*") if is_video_name(p.name)}
        dataset = read(self.ANNOTATIONS, *names)
        assert len(names) == 98
        assert {r.path for r in dataset.records if r.path in names} == names
        flat = {Path(name).with_suffix(".mp4").name for name in names}
        assert sum(r.path in flat for r in read(self.ANNOTATIONS, *flat).records) == 98


def test_files_of_unlisted_extensions_and_of_none_are_found(tmp_path):
    names = ("v_Run_g01_c01", "x/v_Run_g02_c01.clip")
    dataset = read(write_lists(tmp_path), *names)
    assert {r.path for r in dataset.records if r.path in names} == set(names)


def test_tabs_backslashes_and_utf16_are_read(tmp_path):
    folder = write_lists(tmp_path)
    before = read(folder)
    for path in folder.iterdir():
        text = path.read_text().replace(" ", "\t").replace("/", "\\")
        path.write_text(text, encoding="utf-16")
    assert read(folder) == before


def test_all_bad_lines_and_names_of_several_files_are_reported_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"^2 errors: .*testlist01\.txt, line 1: .*testlist01\.txt, line 2: "):
        read(write_lists(tmp_path, testlist01=["Jump/v_Jump_g01_c01.avi", "nonsense"]))
    names = ("x/v_Run_g01_c01.mp4", "y/v_Run_g01_c01.mp4", "x/v_Run_g02_c01.mp4", "y/v_Run_g02_c01.mp4")
    with pytest.raises(ValueError, match=r"^2 errors: 2 files are named .*; 2 files are named"):
        read(write_lists(tmp_path), *names)
