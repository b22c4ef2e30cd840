"""Which videos of a data set there are, and under which fingerprint."""

import unicodedata

import pytest

from pipelines.prepare.config import (
    FolderDatasetConfig,
    KineticsDatasetConfig,
    PrepareConfig,
    YouTube8MDatasetConfig,
)
from pipelines.prepare.listing import list_videos


def test_whether_clips_are_trimmed_belongs_to_the_settings(tmp_path):
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\na,xxxxxxxxxxx,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx.mp4").touch()
    dataset = KineticsDatasetConfig(root=str(tmp_path / "videos"), annotations=(tmp_path / "train.csv",))
    prints = {
        list_videos(
            PrepareConfig(dataset=dataset.model_copy(update={"is_trimmed": is_trimmed})), output=tmp_path
        ).description["fingerprint"]
        for is_trimmed in (True, False)
    }
    assert len(prints) == 2


def test_test_videos_without_labels_stay_whole(tmp_path):
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end\nxxxxxxxxxxx,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx_000001_000002.mp4").touch()
    dataset = KineticsDatasetConfig(root=str(tmp_path / "videos"), annotations=(tmp_path / "test.csv",))
    description = list_videos(PrepareConfig(dataset=dataset), output=tmp_path).description
    assert description["class_names"] == []
    assert description["max_segment_seconds"] is None


def test_videos_that_turn_out_untrimmed_are_the_same_data_set(tmp_path):
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\na,xxxxxxxxxxx,1,2\nb,yyyyyyyyyyy,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx_000001_000002.mp4").touch()
    settings = PrepareConfig(
        dataset=KineticsDatasetConfig(
            root=str(tmp_path / "videos"), annotations=(tmp_path / "train.csv",), is_trimmed=False
        )
    )
    before = list_videos(settings, output=tmp_path)
    (tmp_path / "videos" / "yyyyyyyyyyy.mp4").touch()
    after = list_videos(settings, output=tmp_path)
    assert (before.is_found().sum(), after.is_found().sum()) == (1, 2)
    assert sorted(after.records.column("start_seconds").to_pylist(), key=str) == [1.0, None]
    assert before.description["fingerprint"] == after.description["fingerprint"]


def list_folder(root, *rows, **settings):
    """List the class folders of a root, or the rows of a CSV that lies elsewhere."""
    if rows:
        settings["annotations"] = root.parent / "lists" / "list.csv"
        settings["annotations"].parent.mkdir(exist_ok=True)
        settings["annotations"].write_text("\n".join(["path,label", *rows]))
    dataset = FolderDatasetConfig(root=str(root), test_fraction=0, **settings)
    return list_videos(PrepareConfig(dataset=dataset), output=root.parent / "out")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    return root


def test_what_a_csv_names_is_found_whatever_it_is_called_and_wherever_it_lies(tmp_path):
    names = ["v/one", "v/b.unlisted", "v/c.txt", ".hidden/d.mp4", "v/@eaDir/e.mp4", "v/f.mp4"]
    listing = list_folder(touch(tmp_path / "root", *names), *(f"{name},x" for name in [*names, "v/missing"]))
    assert listing.is_found().sum() == len(names)
    assert listing.num_bytes().sum() == len(names)
    assert listing.notes == ()


def test_a_late_file_of_an_unlisted_extension_is_found(tmp_path):
    root = touch(tmp_path / "root", "v/a.mp4")
    before = list_folder(root, "v/a.mp4,x", "v/b.txt,y")
    after = list_folder(touch(root, "v/b.txt"), "v/a.mp4,x", "v/b.txt,y")
    assert (before.is_found().sum(), after.is_found().sum()) == (1, 2)
    assert before.description == after.description


def test_a_csv_of_names_without_extension_is_refused_with_the_extension(tmp_path):
    with pytest.raises(
        ValueError, match=r"'v/c' is missing, but there is 'v/c\.mp4': write names with their extension"
    ):
        list_folder(touch(tmp_path / "root", "v/c.mp4"), "v/c,x")


def test_a_missing_video_beside_one_that_differs_in_case_is_a_note(tmp_path):
    [note] = list_folder(touch(tmp_path / "root", "v/c.mp4", "v/d.mp4"), "v/d.mp4,x", "v/C.mp4,x").notes
    assert note.startswith("'v/C.mp4' is missing, but there is 'v/c.mp4'")


def test_class_folders_pass_over_what_is_no_data_with_notes(tmp_path):
    root = touch(tmp_path / "root", "run/a.mp4", "run/._a.mp4", ".ipynb_checkpoints/a.mp4", "run/b.swf", "run/c.jpg")
    listing = list_folder(root)
    assert listing.description["class_names"] == ["run"]
    assert [note.partition(":")[0] for note in listing.notes] == [
        "hidden files and folders, and those of systems and tools, passed over",
        "possible videos not looked at",
        "pictures not looked at",
    ]


def test_a_root_without_videos_is_refused_with_what_it_holds(tmp_path):
    with pytest.raises(ValueError, match=r"no videos found in root .*, which holds 2 \.jpg, 1 \.zip: looked for index"):
        list_folder(touch(tmp_path / "root", "run/1.jpg", "run/2.jpg", "x.zip"))


def test_lists_of_ids_find_files_without_extension_and_nothing_that_was_left_behind(tmp_path):
    root = touch(tmp_path / "root", "a/xxxxxxxxxxx", ".Trash-1000/yyyyyyyyyyy.mp4", "zzzzzzzzzzz.json")
    (tmp_path / "ids.txt").write_text("xxxxxxxxxxx\nyyyyyyyyyyy\nzzzzzzzzzzz\n")
    dataset = YouTube8MDatasetConfig(root=str(root), annotations=tmp_path / "ids.txt")
    listing = list_videos(PrepareConfig(dataset=dataset), output=tmp_path)
    assert listing.is_found().sum() == 1
    assert listing.notes == ("hidden files and folders, and those of systems and tools, passed over: 1 (1 .Trash-*)",)


def test_a_name_in_the_form_of_a_mac_is_the_same_data_set(tmp_path):
    listings = [
        list_folder(touch(tmp_path / form / "root", unicodedata.normalize(form, "Caf\u00e9/a.mp4")), **settings)
        for form in ("NFC", "NFD")
        for settings in ({}, {"is_labelled": False})
    ]
    prints = [listing.description["fingerprint"] for listing in listings]
    assert prints[:2] == prints[2:]
    assert all(listing.is_found().all() for listing in listings)


def test_labels_that_differ_in_case_or_blanks_are_a_note(tmp_path):
    [note] = list_folder(touch(tmp_path / "root", "High_Jump/a.mp4", "high jump/b.mp4", "run/c.mp4")).notes
    assert note == "classes 'High_Jump' and 'high jump' are two, although they differ in case or blanks only"


def test_a_clip_and_its_preview_in_class_folders_are_a_note(tmp_path):
    [note] = list_folder(touch(tmp_path / "root", "run/a.mp4", "run/a.gif", "jump/b.mp4")).notes
    assert note == "'run/a.gif' and 'run/a.mp4' are two videos: delete one if it is a copy"


def test_a_missing_path_that_is_not_utf8_is_a_note(tmp_path):
    root = touch(tmp_path / "root", "v/\u00e9.mp4", "v/a.mp4")
    rows = "path,label\nv/\u00e9.mp4,x\nv/a.mp4,y\n"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "cp1252.csv").write_bytes(rows.encode("cp1252"))
    [note] = list_folder(root, annotations=tmp_path / "lists" / "cp1252.csv").notes
    assert note == r"'v/\xe9.mp4' is missing, and is not UTF-8: save the CSV as UTF-8 (Excel: CSV UTF-8)"


def test_notes_are_one_counted_line_for_each_kind(tmp_path):
    root = touch(tmp_path / "root", *(f"run/{name}.{end}" for name in "ab" for end in ("mp4", "gif")))
    touch(root, *(f"{label}/c.mp4" for label in ("Run", "RUN", "High Jump", "high_jump")))
    twins, labels = list_folder(root).notes
    assert twins == "'run/a.gif' and 'run/a.mp4' are two videos (and 1 more): delete one if it is a copy"
    assert labels.endswith("are two, although they differ in case or blanks only (and 2 more)")
    rows = [f"v/{name}.MP4,x" for name in "abc"]
    [near] = list_folder(touch(tmp_path / "other", "v/a.mp4", "v/b.mp4", "v/c.mp4", "d.mp4"), *rows, "d.mp4,y").notes
    assert near.startswith("'v/a.MP4' is missing, but there is 'v/a.mp4' (and 2 more): write names")


def test_rows_that_repeat_another_are_a_note(tmp_path):
    (tmp_path / "ids.txt").write_text("xxxxxxxxxxx\nyyyyyyyyyyy\nxxxxxxxxxxx\n")
    dataset = YouTube8MDatasetConfig(
        root=str(touch(tmp_path / "root", "xxxxxxxxxxx.mp4")), annotations=tmp_path / "ids.txt"
    )
    listing = list_videos(PrepareConfig(dataset=dataset), output=tmp_path)
    assert listing.notes == ("rows that repeat another one, and count once: 1",)
