import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare.coverage import Counts, count_coverage, format_coverage, metrics, write_coverage_csv
from pipelines.shards.schemas import REPORT_SCHEMA

PREPARED = {"is_found": True, "is_decoded": True, "is_prepared": True, "reason": "", "encoding": "h264"}
PREPARED |= {"num_segments": 2, "num_frames": 60, "seconds": 2.5, "source_bytes": 1000, "stored_bytes": 300}
MISSING = {"is_found": False, "is_decoded": False, "is_prepared": False, "reason": "not found", "encoding": ""}
MISSING |= {"num_segments": 0, "num_frames": 0, "seconds": 0.0, "source_bytes": 0, "stored_bytes": 0}


def video(name, *, label="run", splits=("train",), reason=None):
    """A row of `videos.parquet`; with a `reason`, one that was found and failed."""
    row = PREPARED if reason is None else MISSING | {"is_found": True, "reason": reason}
    return row | {"video_id": name, "label": label, "splits": list(splits)}


@pytest.fixture
def count(tmp_path):
    def count_rows(rows):
        pq.write_table(pa.Table.from_pylist(rows, schema=REPORT_SCHEMA), tmp_path / "videos.parquet")
        return count_coverage(tmp_path / "videos.parquet")

    return count_rows


def test_each_stage_is_counted_by_fold_and_split_by_class_and_once_in_all(count):
    coverage = count(
        [
            video("a", label="run", splits=("train", "test")),
            video("b", label="run", splits=("train", "unused"), reason="empty file: 0 bytes"),
            video("c", label="walk", splits=("test", "train")) | MISSING,
            # decoded, but nothing of it lies in the interval: not prepared
            video("d", label="walk", splits=("test", "train")) | MISSING | {"is_found": True, "is_decoded": True},
        ]
    )
    assert coverage.total == Counts(listed=4, found=3, decoded=2, prepared=1)
    assert coverage.per_class == {"run": Counts(2, 2, 1, 1), "walk": Counts(2, 1, 1, 0)}
    assert list(coverage.per_split.items()) == [
        ((1, "train"), Counts(2, 2, 1, 1)),
        ((1, "test"), Counts(2, 1, 1, 0)),
        ((2, "train"), Counts(2, 1, 1, 0)),
        ((2, "test"), Counts(1, 1, 1, 1)),
        ((2, "unused"), Counts(1, 1, 0, 0)),
    ]
    assert (coverage.num_segments, coverage.num_frames, coverage.seconds) == (2, 60, 2.5)
    assert (coverage.source_bytes, coverage.stored_bytes, coverage.encodings) == (1000, 300, {"h264": 1})


def test_counts_of_a_file_of_many_batches_equal_those_of_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    num_videos = 150_000
    stage = rng.integers(0, 4, num_videos)
    label = rng.choice(["run", "skip", "walk"], num_videos)
    columns = {"is_found": stage >= 1, "is_decoded": stage >= 2, "is_prepared": stage >= 3, "label": label}
    columns |= {"video_id": np.arange(num_videos).astype(str), "splits": [["train"]] * num_videos}
    columns |= {"reason": np.where(stage >= 3, "", "not found"), "num_frames": stage}
    table = pa.table({field.name: columns.get(field.name, pa.nulls(num_videos)) for field in REPORT_SCHEMA})
    pq.write_table(table.cast(REPORT_SCHEMA), tmp_path / "videos.parquet", row_group_size=8192)
    coverage = count_coverage(tmp_path / "videos.parquet")
    assert coverage.total == tuple((stage >= least).sum() for least in range(4))
    assert coverage.per_split == {(1, "train"): coverage.total}
    assert coverage.per_class["walk"] == tuple(((stage >= least) & (label == "walk")).sum() for least in range(4))
    assert coverage.reasons["not found"].num_videos == (stage < 3).sum()
    assert coverage.num_frames == stage.sum()


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        (["packet 7 is damaged", "packet 1,024 is damaged"], "packet N is damaged"),
        (["leads out of '/data/a b', to '/etc/x.mp4'", "leads out of '/d', to '/y'"], "leads out of ..., to ..."),
        (["picture size 9x0 is bad", "picture size 100000x100000 is bad"], "picture size WxH is bad"),
        (["no h264 at s3://bucket/a.mp4", "no h264 at /data/b.mp4"], "no h264 at ..."),
    ],
)
def test_reasons_that_differ_in_numbers_and_paths_count_together(count, reasons, kind):
    coverage = count([video(name, reason=reason) for name, reason in zip(("first", "second"), reasons, strict=True)])
    assert coverage.reasons == {kind: (2, "first")}


def test_the_most_frequent_reason_comes_first_and_an_apostrophe_is_no_quote(count):
    rows = [video("a", reason="doesn't open, won't play"), video("b", reason="no video stream")]
    rows += [video("c", reason="no video stream")]
    assert list(count(rows).reasons) == ["no video stream", "doesn't open, won't play"]


def test_doubts_about_prepared_videos_are_counted_by_kind(count):
    notes = ["stream 1, 640x360, taken of 2 video streams", "30 frames a second by its time stamps"]
    other = ["stream 3, 64x36, taken of 2 video streams"]
    coverage = count([video("a") | {"notes": notes}, video("b") | {"notes": other}, video("c") | {"notes": []}])
    assert coverage.notes == {
        "stream N, WxH, taken of N video streams": (2, "a"),
        "N frames a second by its time stamps": (1, "a"),
    }
    lines = format_coverage(coverage).splitlines()
    heading = lines.index("prepared, but doubtful (column notes of videos.parquet), and an example each:")
    assert lines[heading + 1].split() == "2 x stream N, WxH, taken of N video streams a".split()


def test_a_table_from_before_there_were_notes_is_counted(tmp_path):
    schema = pa.schema([field for field in REPORT_SCHEMA if field.name != "notes"])
    pq.write_table(pa.Table.from_pylist([video("a")], schema=schema), tmp_path / "videos.parquet")
    coverage = count_coverage(tmp_path / "videos.parquet")
    assert (coverage.total.prepared, coverage.notes) == (1, {})
    assert "doubtful" not in format_coverage(coverage)


def test_the_table_is_aligned_and_names_the_classes_that_lack_most_first(count):
    rows = [video(f"{label}{place}", label=label) for label in ("full", "half", "most", "none") for place in range(4)]
    for place in (4, 5, 8, 12, 13, 14, 15):
        rows[place] |= MISSING
    lines = format_coverage(count(rows), max_classes=2).splitlines()
    heading = lines.index("classes with the most missing videos:")
    assert [line.split()[0] for line in lines[heading + 1 : heading + 3]] == ["none", "half"]
    assert lines[heading + 3] == "(1 more classes lack videos, 1 of 4 classes are complete)"
    table = lines[: heading + 3]
    ends = {line.rindex(line.split()[5 if line.startswith(("all", "fold")) else 4]) for line in table[1:heading]}
    assert len(ends) == 1
    assert "         7 x not found  half0" in lines


def test_one_missing_video_of_many_is_not_called_a_hundred_percent(count):
    rows = [video(str(place)) for place in range(5000)]
    assert "100.0 %" in format_coverage(count(rows))
    rows[7] |= MISSING
    table = format_coverage(count(rows))
    assert "99.9 %" in table
    assert "100.0 %" not in table


def test_an_unlabelled_set_and_an_empty_one_have_no_part_for_classes(count):
    for rows in ([video("a", label=None), video("b", label=None) | MISSING], []):
        coverage = count(rows)
        assert coverage.per_class == {}
        assert coverage.total.listed == len(rows)
        assert "class" not in format_coverage(coverage)


def test_mlflow_gets_the_totals_and_every_split_of_every_fold(count):
    logged = metrics(count([video("a", splits=("train", "val")), video("b", splits=("train", "val")) | MISSING]))
    assert logged["videos/listed"] == 2.0
    assert logged["videos/found"] == logged["videos/decoded"] == logged["videos/prepared"] == 1.0
    assert (logged["fold1/train/listed"], logged["fold2/val/prepared"]) == (2.0, 1.0)
    assert (logged["stored/seconds"], logged["stored/stored_bytes"]) == (2.5, 300.0)


def test_the_csv_holds_every_class_whatever_its_name(count, tmp_path):
    labels = ["caf\u00e9, dancing", 'the "worm"', *(f"class {place}" for place in range(30))]
    write_coverage_csv(count([video(label, label=label) for label in labels]), tmp_path / "coverage.csv")
    with (tmp_path / "coverage.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"]: row["prepared"] for row in rows if row["class"]} == dict.fromkeys(labels, "1")
    assert [row["listed"] for row in rows if row["split"] == "train"] == ["32"]
