"""The official Kinetics CSV files become a data set of one fold."""

from collections import Counter
from pathlib import Path

import pytest

from t3d_core.datasets.kinetics import read_kinetics
from t3d_core.datasets.splits import check_no_leak

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"{SHARED_DATA} is not on this machine")

HEADER = "label,youtube_id,time_start,time_end,split"
DRUM = "air drumming,-_Qabcdefgh,17,27,train"
ABSEIL = "abseiling,0wR5jVB-WPk,417,427,val"


def write_csv(folder, *lines, name="list.csv", data=None):
    path = folder / name
    path.write_bytes("".join(f"{line}\n" for line in lines).encode() if data is None else data)
    return path


def read(paths, *file_names, **settings):
    return read_kinetics([paths] if isinstance(paths, Path) else paths, file_names=file_names, **settings)


def places_of(dataset):
    return [(r.path, r.start_seconds, r.end_seconds) for r in dataset.records]


class TestRows:
    def test_labels_intervals_and_splits_are_read_and_missing_files_keep_the_official_path(self, tmp_path):
        dataset = read(write_csv(tmp_path, HEADER, DRUM, ABSEIL), name="kinetics400")
        assert dataset.name == "kinetics400"
        assert dataset.class_names == ("abseiling", "air drumming")
        drum = dataset.records[0]
        assert (drum.video_id, drum.source, drum.splits) == ("-_Qabcdefgh_000017_000027", "-_Qabcdefgh", ("train",))
        assert places_of(dataset) == [
            ("air drumming/-_Qabcdefgh_000017_000027.mp4", None, None),
            ("abseiling/0wR5jVB-WPk_000417_000427.mp4", None, None),
        ]

    def test_columns_stand_in_any_order_with_others_between_mark_and_windows_line_ends(self, tmp_path):
        data = b'\xef\xbb\xbfis_cc,time_end,time_start,label,youtube_id,split\r\n0,27,17,"run, jump",abc,validate\r\n'
        [record] = read(write_csv(tmp_path, data=data)).records
        assert (record.video_id, record.label, record.splits) == ("abc_000017_000027", "run, jump", ("val",))

    def test_test_videos_without_label_column_are_listed_unlabelled(self, tmp_path):
        test = write_csv(tmp_path, "youtube_id,time_start,time_end,split", "abc,1,11,test", name="test.csv")
        dataset = read([write_csv(tmp_path, HEADER, DRUM), test])
        assert [(r.label, r.splits) for r in dataset.records] == [("air drumming", ("train",)), (None, ("test",))]
        assert dataset.records[1].path == "abc_000001_000011.mp4"
        assert dataset.class_names == ("air drumming",)

    def test_semicolons_decimal_commas_blank_rows_and_other_names_of_splits_are_read(self, tmp_path):
        rows = ("run;abc;1,5;11,5;Valid", ";;;;", "run;def;1;11;TRAINING")
        records = read(write_csv(tmp_path, HEADER.replace(",", ";"), *rows)).records
        assert [(r.video_id, r.splits) for r in records] == [
            ("abc_000001.500_000011.500", ("val",)),
            ("def_000001_000011", ("train",)),
        ]

    def test_a_label_has_one_unicode_form_and_must_be_text(self, tmp_path):
        rows = ("caf\u00e9,abc,1,11,train", "cafe\u0301,def,1,11,train")
        assert read(write_csv(tmp_path, HEADER, *rows)).class_names == ("caf\u00e9",)
        with pytest.raises(ValueError, match=r"line 2: label 'caf\\xe9' is not UTF-8"):
            read(write_csv(tmp_path, data=f"{HEADER}\n{rows[0]}\n".encode("cp1252")))

    def test_clips_without_extension_are_found(self, tmp_path):
        name = "val/abseiling/0wR5jVB-WPk_000417_000427"
        assert read(write_csv(tmp_path, HEADER, ABSEIL), name).records[0].path == name

    def test_all_bad_rows_of_all_files_are_reported_at_once(self, tmp_path):
        first = write_csv(tmp_path, HEADER, DRUM, DRUM.replace("train", "test"), "run,,1,2,train", name="a.csv")
        second = write_csv(tmp_path, HEADER, DRUM.replace("train", "dev"), name="b.csv")
        with pytest.raises(ValueError, match=r"^3 errors: .*a\.csv, line 3: .*a\.csv, line 4: .*b\.csv, line 2: "):
            read([first, second])

    @pytest.mark.parametrize(
        ("name", "split"), [("kinetics-400_val.csv", "val"), ("train.csv", "train"), ("k600-Validate-2.csv", "val")]
    )
    def test_without_a_split_column_the_name_of_the_file_tells(self, tmp_path, name, split):
        path = write_csv(tmp_path, "label,youtube_id,time_start,time_end", "run,abc,1,11", name=name)
        assert read(path).records[0].splits == (split,)

    def test_intervals_of_one_video_are_records_of_one_source(self, tmp_path):
        dataset = read(write_csv(tmp_path, HEADER, "run,abc,1,11,train", "jump,abc,20,30,train"))
        assert [(r.video_id, r.source) for r in dataset.records] == [
            ("abc_000001_000011", "abc"),
            ("abc_000020_000030", "abc"),
        ]

    def test_rows_that_stand_twice_are_one_record_and_are_counted(self, tmp_path):
        same = DRUM.replace("17,27", "17.0,27.00")
        dataset = read(write_csv(tmp_path, HEADER, DRUM, DRUM, same, ABSEIL))
        assert len(dataset.records) == 2
        assert dataset.notes == ("rows that repeat another one, and count once: 2",)
        assert read(write_csv(tmp_path, HEADER, DRUM, ABSEIL)).notes == ()

    def test_an_id_must_be_text(self, tmp_path):
        with pytest.raises(ValueError, match=r"line 2: youtube_id 'ab\\xe9' is not UTF-8"):
            read(write_csv(tmp_path, data=f"{HEADER}\nrun,ab\xe9,1,2,train\n".encode("latin-1")))

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (
                (HEADER, DRUM, DRUM.replace("air drumming", "yoga")),
                "line 3: .* has label 'yoga' .* 'air drumming' .* line 2",
            ),
            ((HEADER, DRUM, DRUM.replace("train", "test")), "line 3: .* split 'test', but .*'train' in .*line 2"),
            (
                (HEADER, "run,abc,1.0001,3,train", "run,abc,1.0002,3,train"),
                r"line 3: 1\.0002 to 3\.0 s of 'abc' differs by less than a millisecond .* line 2: delete one",
            ),
            ((HEADER, DRUM.replace("train", "dev")), "line 2: split 'dev' is not one of train, val"),
            ((HEADER, DRUM.replace("air drumming", "")), "line 2: no label, which only test videos may lack"),
            ((HEADER, "run,,1,2,train"), "line 2: no youtube_id"),
            ((HEADER, "run,abc,,,train"), "line 2: .* no time_start"),
            ((HEADER, "run,abc,11,1,train"), "line 2: time_start must be at least 0 and less than time_end"),
            ((HEADER, "run,abc,a,1,train"), "line 2: time_start and time_end must both be seconds"),
            (("label,id", "run,abc"), "line 1: no column 'youtube_id'"),
            (("label,youtube_id,time_start,time_end", "run,abc,1,11"), "line 2: no split, and the file's name"),
            ((HEADER, DRUM, DRUM.replace(" ", "_").replace("17", "40").replace("27", "50")), "differ only in spaces"),
            ((HEADER,), "no videos found"),
            ((HEADER, "..,../abc,1,11,train"), "must lead to a file below the root"),
        ],
    )
    def test_a_bad_row_is_refused_with_its_line(self, tmp_path, lines, message):
        with pytest.raises(ValueError, match=message):
            read(write_csv(tmp_path, *lines))


class TestFiles:
    @pytest.mark.parametrize(
        "name",
        [
            "air drumming/-_Qabcdefgh_000017_000027.mp4",
            "air_drumming/-_Qabcdefgh_000017_000027.mkv",
            "train/air_drumming/-_Qabcdefgh_000017_000027.webm",
            "-_Qabcdefgh_000017_000027.mp4",
        ],
    )
    def test_a_trimmed_clip_is_found_in_every_layout_and_is_not_cut_again(self, tmp_path, name):
        assert places_of(read(write_csv(tmp_path, HEADER, DRUM), name)) == [(name, None, None)]

    def test_whole_videos_are_cut_and_clips_called_by_the_id_are_not(self, tmp_path):
        path = write_csv(tmp_path, HEADER, DRUM)
        assert places_of(read(path, "x/-_Qabcdefgh.webm", is_trimmed=False)) == [("x/-_Qabcdefgh.webm", 17.0, 27.0)]
        assert places_of(read(path, "x/-_Qabcdefgh.webm", is_trimmed=True)) == [("x/-_Qabcdefgh.webm", None, None)]
        with pytest.raises(ValueError, match=r"'x/-_Qabcdefgh\.webm' is named by its id alone: set whether"):
            read(path, "x/-_Qabcdefgh.webm")

    def test_a_trimmed_clip_is_preferred_to_the_whole_video(self, tmp_path):
        names = ("-_Qabcdefgh.mp4", "-_Qabcdefgh_000017_000027.mp4")
        assert places_of(read(write_csv(tmp_path, HEADER, DRUM), *names)) == [(names[1], None, None)]

    def test_a_whole_video_serves_all_its_intervals_but_a_clip_of_unknown_interval_none(self, tmp_path):
        path = write_csv(tmp_path, HEADER, "run,abc,1,11,train", "jump,abc,20,30,train")
        cut = places_of(read(path, "abc.mp4", is_trimmed=False))
        assert cut == [("abc.mp4", 1.0, 11.0), ("abc.mp4", 20.0, 30.0)]
        assert "abc.mp4" not in {place for place, _, _ in places_of(read(path, "abc.mp4", is_trimmed=True))}

    def test_ids_that_differ_in_case_are_different_videos(self, tmp_path):
        [record] = read(write_csv(tmp_path, HEADER, DRUM), "-_QABCDEFGH_000017_000027.mp4").records
        assert record.path == "air drumming/-_Qabcdefgh_000017_000027.mp4"


class TestSplits:
    def rows(self, num_videos, split):
        return [f"{('run', 'jump')[i % 2]},{split}{i // 2},{i},{i + 10},{split}" for i in range(num_videos)]

    def test_validation_is_carved_out_of_training_by_video(self, tmp_path):
        path = write_csv(tmp_path, HEADER, *self.rows(40, "train"), *self.rows(10, "test"))
        dataset = read(path, val_fraction=0.1)
        assert Counter(r.splits[0] for r in dataset.records) == {"train": 36, "val": 4, "test": 10}
        assert check_no_leak(dataset) == (0,)

    def test_validation_beside_an_official_one_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"val_fraction is 0\.1, but the files hold an official val"):
            read(write_csv(tmp_path, HEADER, DRUM, ABSEIL), val_fraction=0.1)

    def test_videos_in_two_official_lists_are_counted_and_never_carved(self, tmp_path):
        rows = (*self.rows(8, "train"), *("run,train0,50,60,test", "run,train1,50,60,test"))
        dataset = read(write_csv(tmp_path, HEADER, *rows), val_fraction=0.25)
        assert check_no_leak(dataset) == (2,)
        assert {r.source for r in dataset.records if r.splits == ("val",)} < {"train2", "train3"}


@needs_shared_data
class TestOfficialLists:
    ANNOTATIONS = SHARED_DATA / "annotations" / "kinetics"

    def test_kinetics_400_has_19906_validation_and_38685_unlabelled_test_videos(self):
        dataset = read([self.ANNOTATIONS / "kinetics-400_val.csv", self.ANNOTATIONS / "kinetics-400_test.csv"])
        assert Counter((r.splits[0], r.label is None) for r in dataset.records) == {
            ("val", False): 19906,
            ("test", True): 38685,
        }
        assert len(dataset.class_names) == 400
        assert check_no_leak(dataset) == (0,)

    def test_kinetics_600_has_thirty_thousand_validation_clips_of_29994_videos(self):
        dataset = read(self.ANNOTATIONS / "kinetics-600_val.csv")
        assert Counter(r.splits for r in dataset.records) == {("val",): 30000}
        assert len({r.source for r in dataset.records}) == 29994
        assert len(dataset.class_names) == 600

    def test_the_clip_at_hand_is_found_by_the_name_of_a_listed_one(self):
        assert (SHARED_DATA / "single_clips" / "abseiling_k400.mp4").is_file()
        name = "val/abseiling/0wR5jVB-WPk_000417_000427.mp4"
        dataset = read(self.ANNOTATIONS / "kinetics-400_val.csv", name, "abseiling_k400.mp4")
        assert [r.video_id for r in dataset.records if r.path == name] == ["0wR5jVB-WPk_000417_000427"]
        assert "abseiling_k400.mp4" not in {r.path for r in dataset.records}
