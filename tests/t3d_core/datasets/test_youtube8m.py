"""A list of YouTube-8M videos becomes an unlabelled data set, all of it for training."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.datasets import youtube8m
from t3d_core.datasets.youtube8m import read_youtube8m

A, B, C = "0wR5jVB-WPk", "-_Qabcdefgh", "0sf943sWZls"


def write(folder, *lines, name="list.csv", newline="\n"):
    path = folder / name
    path.write_bytes(newline.join((*lines, "")).encode())
    return path


def write_map(folder, *lines):
    return write(folder, "yt8m_id,youtube_id", *lines, name="map.csv")


def places_of(dataset):
    return [(r.video_id, r.path, r.start_seconds, r.end_seconds) for r in dataset.records]


def test_a_list_of_ids_is_found_in_any_folder_and_all_for_training(tmp_path):
    dataset = read_youtube8m(write(tmp_path, A, "", B, C, newline="\r\n"), file_names=["0w/" + A + ".webm", B + ".mp4"])
    assert places_of(dataset) == [
        (A, f"0w/{A}.webm", None, None),
        (B, f"{B}.mp4", None, None),
        (C, f"{C}.mp4", None, None),
    ]
    assert {(r.label, r.splits) for r in dataset.records} == {(None, ("train",))}
    assert [r.source for r in dataset.records] == [A, B, C]
    assert dataset.class_names == ()


@pytest.mark.parametrize(
    "header",
    ["youtube_id,start_seconds,end_seconds", "\ufeffid,time_start,time_end", '"youtube_id", time_start ,"time_end"'],
)
def test_intervals_are_cut_out_of_whole_videos_unless_they_have_a_clip(tmp_path, header):
    path = write(tmp_path, header, f"{A},120,125.5", f"{A},7,17", f"{B},,", f"{C},1,2")
    dataset = read_youtube8m(path, file_names=[f"{A}.mp4", f"x/{A}_000007_000017.mkv", f"{B}.mp4"])
    assert places_of(dataset) == [
        (f"{A}_000120_000125.500", f"{A}.mp4", 120.0, 125.5),
        (f"{A}_000007_000017", f"x/{A}_000007_000017.mkv", 0.0, None),
        (B, f"{B}.mp4", None, None),
        (f"{C}_000001_000002", f"{C}.mp4", 1.0, 2.0),
    ]
    assert [r.source for r in dataset.records] == [A, A, B, C]


def test_the_records_are_the_same_whatever_files_there_are(tmp_path):
    path = write(tmp_path, "youtube_id,start_seconds,end_seconds", f"{A},7,17", f"{B},,")
    many = [f"{A}.mp4", f"{A}_000007_000017.mp4", f"{B}_000000_000010.mp4", f"{B}.mp4"]
    ids = {tuple(r.video_id for r in read_youtube8m(path, file_names=many[:number]).records) for number in range(5)}
    assert ids == {(f"{A}_000007_000017", B)}


def test_columns_stand_in_any_order_and_others_are_ignored(tmp_path):
    path = write(tmp_path, "labels,end_seconds,youtube_id,start_seconds", f'"3,7",15,{A},5')
    assert places_of(read_youtube8m(path, file_names=[])) == [(f"{A}_000005_000015", f"{A}.mp4", 5.0, 15.0)]


def test_what_is_listed_twice_is_one_record_and_is_counted(tmp_path):
    dataset = read_youtube8m(write(tmp_path, A, B, A), file_names=[])
    assert len(dataset.records) == 2
    assert dataset.notes == ("rows that repeat another one, and count once: 1",)
    assert read_youtube8m(write(tmp_path, A, B), file_names=[]).notes == ()


@pytest.mark.parametrize("header", ["video", "Videos", "video_ids", "VideoId", "YouTube ID", "url", "vid"])
def test_a_first_line_that_names_a_column_in_other_words_is_no_video(tmp_path, header):
    for ids in ((A, B), ("abc", "abcde")):
        with pytest.raises(
            ValueError, match=f"line 1: '{header}' is no id, it seems to name the column: delete this line"
        ):
            read_youtube8m(write(tmp_path, header, *ids), file_names=[])


def test_a_first_line_in_a_foreign_language_is_known_by_the_length_of_the_ids_below_it(tmp_path):
    with pytest.raises(ValueError, match="line 1: 'Kennung' is no id"):
        read_youtube8m(write(tmp_path, "Kennung", A, B), file_names=[])
    for ids in (("nXSc", A), (A, "nXSc"), ("abc", "abcde"), ("abc",)):
        assert len(read_youtube8m(write(tmp_path, *ids), file_names=[]).records) == len(ids)


def test_an_id_that_is_not_text_is_refused_with_its_line(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"abc\nab\xe9\n")
    with pytest.raises(ValueError, match=r"list\.csv, line 2: id 'ab\\xe9' is not UTF-8"):
        read_youtube8m(path, file_names=[])
    id_map = tmp_path / "map.csv"
    id_map.write_bytes(b"yt8m_id,youtube_id\nnXSc,ab\xe9\n")
    with pytest.raises(ValueError, match=r"map\.csv, line 2: id 'ab\\xe9' is not UTF-8"):
        read_youtube8m(write(tmp_path, "nXSc"), file_names=[], id_map=id_map)


def test_a_map_with_two_videos_of_one_id_is_refused(tmp_path):
    id_map = write_map(tmp_path, f"nXSc,{A}", f"nXSc,{A}", f"nXSc,{B}")
    with pytest.raises(ValueError, match=rf"line 4: yt8m_id 'nXSc' has youtube_id '{B}', but '{A}' in a row before it"):
        read_youtube8m(write(tmp_path, "nXSc"), file_names=[], id_map=id_map)


@pytest.mark.parametrize("lines", [("nXSc", "zzZZ"), ("yt8m_id", "nXSc", "zzZZ"), ("id", "nXSc", "zzZZ")])
def test_obfuscated_ids_are_translated_and_those_the_map_lacks_are_listed_as_missing(tmp_path, lines):
    id_map = write_map(tmp_path, f"nXSc,{C}", f"aaaa,{A}")
    dataset = read_youtube8m(write(tmp_path, *lines), file_names=[f"{C}.mp4"], id_map=id_map)
    assert places_of(dataset) == [(C, f"{C}.mp4", None, None), ("zzZZ", "zzZZ.mp4", None, None)]


def test_ids_of_a_column_youtube_id_are_not_translated(tmp_path):
    path = write(tmp_path, "yt8m_id,youtube_id", f"nXSc,{A}")
    dataset = read_youtube8m(path, file_names=[], id_map=write_map(tmp_path, f"{A},{C}"))
    assert [r.video_id for r in dataset.records] == [A]


def test_of_a_map_of_all_videos_only_the_listed_ones_are_kept(tmp_path):
    id_map = write_map(tmp_path, *(f"id{i:02d},video{i:02d}" for i in range(100)))
    assert youtube8m._read_map(id_map, wanted={"id07", "none"}) == {"id07": "video07"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "no videos found"),
        (("youtube_id",), "no videos found"),
        (
            (A, f"{A} 17"),
            "line 2: expected an id, or a first line that names a column youtube_id or yt8m_id or video_id or id",
        ),
        ((f"{A},5,15",), "line 1: expected an id"),
        (("youtube_id", f"../{A}"), "line 2: expected an id"),
        (("youtube_id,start_seconds,end_seconds", f"{A},5,"), "line 2: start_seconds and end_seconds must both be"),
        (("youtube_id,start_seconds,end_seconds", f"{A},15,5"), "line 2: start_seconds must be at least 0"),
        (("yt8m_id", "nXSc"), "a column yt8m_id needs id_map"),
        ((f"{A};5;15",), "line 1: expected an id"),
        (
            ("youtube_id,start_seconds,end_seconds", f"{A},1.0001,3", f"{A},1.0002,3"),
            f"line 3: 1.0002 to 3.0 s of '{A}' differs by less than a millisecond",
        ),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_youtube8m(write(tmp_path, *lines), file_names=[])


def test_lists_are_read_as_spreadsheets_write_them(tmp_path):
    assert [r.video_id for r in read_youtube8m(write(tmp_path, f"{A},,", ",,", f'"{B}"'), file_names=[]).records] == [
        A,
        B,
    ]
    path = write(tmp_path, "YouTube_ID;start_seconds;end_seconds", f"{A};1,5;2,5", ";;")
    [record] = read_youtube8m(path, file_names=[]).records
    assert (record.start_seconds, record.end_seconds) == (1.5, 2.5)


def test_all_bad_rows_are_reported_at_once(tmp_path):
    path = write(tmp_path, "youtube_id,start_seconds,end_seconds", f"{A},5,", "a b,,", f"{A},3,1")
    with pytest.raises(ValueError, match=r"^3 errors: .*line 2: .*line 3: .*line 4: "):
        read_youtube8m(path, file_names=[])


YOUTUBE_ID = st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True)


@given(st.sets(YOUTUBE_ID, min_size=1, max_size=8), st.sampled_from(["{}.mp4", "a/{}.webm"]))
def test_any_id_is_found_by_itself(tmp_path_factory, ids, form):
    path = write(tmp_path_factory.mktemp("list"), "youtube_id", *ids)
    names = {name: form.format(name) for name in ids}
    dataset = read_youtube8m(path, file_names=names.values())
    assert {r.source: r.path for r in dataset.records} == names


def test_ten_thousand_rows_share_one_split_and_their_strings(tmp_path):
    dataset = read_youtube8m(write(tmp_path, *(f"video{i:06d}" for i in range(10_000))), file_names=[])
    assert len(dataset.records) == 10_000
    assert len({id(r.splits) for r in dataset.records}) == 1
    assert all(r.source is r.video_id for r in dataset.records)
    assert not hasattr(dataset.records[0], "__dict__")
