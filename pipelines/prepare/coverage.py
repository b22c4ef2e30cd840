"""`videos.parquet` becomes counts: what was listed, found, decoded and prepared, by class, by fold, and why not.

Every copy of Kinetics lacks some videos, so an accuracy means little without its coverage. The file is read in parts of
some thousand rows and counted by Arrow, so half a million videos take no more memory than a few.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.runtime.text_table import format_table
from t3d_core.datasets.records import SPLITS

_COUNTED = ("is_found", "is_decoded", "is_prepared")
_SUMMED = ("num_segments", "num_frames", "seconds", "source_bytes", "stored_bytes")
# What differs between two failures of one kind: quoted names, absolute paths, URIs, sizes and numbers, except in h264.
_PARTICULARS = (
    (r"""(^|[\s(=:])(?:'[^']*'|"[^"]*"|(?:\w+:)?/[^\s,;)]+)""", r"\1..."),
    (r"\b\d+x\d+\b", "WxH"),
    (r"\b\d[\d.,]*\d\b|\b\d\b", "N"),
)
_NUM_REASONS, _MAX_REASON = 8, 90


class Counts(NamedTuple):
    """Videos: named by the annotations, present, decoded without error, stored in a shard."""

    listed: int = 0
    found: int = 0
    decoded: int = 0
    prepared: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sum, field by field."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    def prepared_fraction(self) -> float:
        """Share of the listed videos that is in the shards, in [0, 1]; 1 where none is listed."""
        return self.prepared / self.listed if self.listed else 1.0


class Reason(NamedTuple):
    """A kind of failure or note: its number of videos, and one of them."""

    num_videos: int
    example: str


@dataclass(frozen=True)
class Coverage:
    """What became of the videos of a data set.

    Attributes:
        per_split: (fold, split) -> counts; every video counts once in each fold.
        per_class: label -> counts, each video once; empty for an unlabelled data set.
        total: each video once.
        encodings: encoding -> prepared videos.
        reasons: kinds of failures, the most frequent first.
        notes: kinds of doubts about prepared videos, the most frequent first.
        num_segments: rows of all shards.
        num_frames: frames in them.
        seconds: their duration.
        source_bytes: size of the files that were read.
        stored_bytes: size of the encoded segments.
    """

    per_split: dict[tuple[int, str], Counts]
    per_class: dict[str, Counts]
    total: Counts
    encodings: dict[str, int]
    reasons: dict[str, Reason]
    notes: dict[str, Reason]
    num_segments: int
    num_frames: int
    seconds: float
    source_bytes: int
    stored_bytes: int


def count_coverage(videos_file: Path) -> Coverage:
    """Count the videos of a `videos.parquet`."""
    tally = _Tally()
    columns = ["video_id", "label", "splits", "reason", "encoding", "notes", *_COUNTED, *_SUMMED]
    with pq.ParquetFile(videos_file) as file:
        for batch in file.iter_batches(columns=columns):
            tally.add(pa.Table.from_batches([batch]))
    return tally.coverage()


def format_coverage(coverage: Coverage, *, max_classes: int = 10) -> str:
    """The counts as a table for the terminal: folds and splits, the classes that lack most, reasons, sizes."""
    groups: list[tuple[str, Counts | None]] = [("all videos", coverage.total)]
    groups += [(f"fold {fold} {split}", counts) for (fold, split), counts in coverage.per_split.items()]
    groups += _class_lines(coverage.per_class, max_classes=max_classes)
    return "\n".join(
        [
            *_table(groups),
            *_reason_lines("not prepared", coverage.reasons),
            *_reason_lines("prepared, but doubtful (column notes of videos.parquet)", coverage.notes),
            _size_line(coverage),
        ]
    )


def metrics(coverage: Coverage) -> dict[str, float]:
    """The counts by their names in MLflow: `videos/found`, `fold1/train/prepared`, `stored/seconds`."""
    named = {f"videos/{name}": float(count) for name, count in coverage.total._asdict().items()}
    for (fold, split), counts in coverage.per_split.items():
        named |= {f"fold{fold}/{split}/{name}": float(count) for name, count in counts._asdict().items()}
    return named | {f"stored/{name}": float(getattr(coverage, name)) for name in _SUMMED}


def write_coverage_csv(coverage: Coverage, path: Path) -> None:
    """Write the total, all splits and all classes, a row each; cells that do not apply are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "split", "class", *Counts._fields])
        writer.writerow(["", "", "", *coverage.total])
        writer.writerows([fold, split, "", *counts] for (fold, split), counts in coverage.per_split.items())
        writer.writerows(["", "", label, *counts] for label, counts in coverage.per_class.items())


class _Tally:
    """The counts of the rows so far; None is the label or split of a row that has none."""

    def __init__(self) -> None:
        self._per_split: dict[tuple[int, str], Counts] = {}
        self._per_label: dict[str | None, Counts] = {}
        self._encodings: Counter[str] = Counter()
        self._reasons: dict[str, Reason] = {}
        self._notes: dict[str, Reason] = {}
        self._sums: Counter[str] = Counter()

    def add(self, table: pa.Table) -> None:
        num_folds = pc.max(pc.list_value_length(table.column("splits"))).as_py() or 0
        for fold in range(1, num_folds + 1):
            by_split = table.append_column("split", pc.list_element(table.column("splits"), fold - 1))
            for split, counts in _count_by(by_split, "split"):
                assert split is not None
                self._per_split[fold, split] = self._per_split.get((fold, split), Counts()).plus(counts)
        for label, counts in _count_by(table, "label"):
            self._per_label[label] = self._per_label.get(label, Counts()).plus(counts)
        for row in pc.value_counts(table.filter(pc.field("is_prepared")).column("encoding")).to_pylist():
            self._encodings[row["values"]] += row["counts"]
        _add_reasons(self._reasons, table.filter(~pc.field("is_prepared")).select(["video_id", "reason"]))
        if "notes" in table.column_names:  # absent where the videos were prepared before there were notes
            _add_reasons(self._notes, _with_a_row_for_each_note(table))
        self._sums.update({name: pc.sum(table.column(name)).as_py() or 0 for name in _SUMMED})

    def coverage(self) -> Coverage:
        total = Counts()
        for counts in self._per_label.values():
            total = total.plus(counts)
        labels = sorted(label for label in self._per_label if label is not None)
        return Coverage(
            per_split={key: self._per_split[key] for key in sorted(self._per_split, key=_place_of_split)},
            per_class={label: self._per_label[label] for label in labels},
            total=total,
            encodings=dict(sorted(self._encodings.items())),
            reasons=_most_frequent_first(self._reasons),
            notes=_most_frequent_first(self._notes),
            **{name: self._sums[name] for name in _SUMMED},
        )


def _place_of_split(key: tuple[int, str]) -> tuple[int, int]:
    fold, split = key
    return fold, SPLITS.index(split)


def _count_by(table: pa.Table, key: str) -> Iterable[tuple[str | None, Counts]]:
    counted = table.group_by(key).aggregate([([], "count_all"), *((name, "sum") for name in _COUNTED)]).to_pylist()
    return ((row[key], Counts(row["count_all"], *(row[f"{name}_sum"] for name in _COUNTED))) for row in counted)


def _add_reasons(reasons: dict[str, Reason], table: pa.Table) -> None:
    """Count the kinds of a table with the columns video_id and reason."""
    kind = table.column("reason")
    for pattern, replacement in _PARTICULARS:
        kind = pc.replace_substring_regex(kind, pattern, replacement)
    kind = pc.utf8_slice_codeunits(kind, 0, _MAX_REASON)
    by_kind = table.append_column("kind", kind).group_by("kind", use_threads=False)
    for row in by_kind.aggregate([([], "count_all"), ("video_id", "first")]).to_pylist():
        known = reasons.get(row["kind"], Reason(0, row["video_id_first"]))
        reasons[row["kind"]] = Reason(known.num_videos + row["count_all"], known.example)


def _with_a_row_for_each_note(table: pa.Table) -> pa.Table:
    notes = table.column("notes").combine_chunks()
    video_ids = table.column("video_id").take(pc.list_parent_indices(notes))
    return pa.table({"video_id": video_ids, "reason": pc.list_flatten(notes)})


def _most_frequent_first(reasons: dict[str, Reason]) -> dict[str, Reason]:
    return dict(sorted(reasons.items(), key=lambda item: (-item[1].num_videos, item[0])))


def _class_lines(per_class: dict[str, Counts], *, max_classes: int) -> list[tuple[str, Counts | None]]:
    """Classes with the lowest coverage; nothing where there are no classes."""
    lacking = [(label, counts) for label, counts in per_class.items() if counts.prepared < counts.listed]
    lacking.sort(key=lambda item: (item[1].prepared_fraction(), -item[1].listed, item[0]))
    if not lacking:
        return [(f"all {len(per_class):,} classes are complete", None)] if per_class else []
    num_more = max(0, len(lacking) - max_classes)
    more = f"{num_more:,} more classes lack videos, " if num_more else ""
    rest = f"({more}{len(per_class) - len(lacking):,} of {len(per_class):,} classes are complete)"
    return [("classes with the most missing videos:", None), *lacking[:max_classes], (rest, None)]


def _table(groups: list[tuple[str, Counts | None]]) -> list[str]:
    """Aligned lines; a name without counts is a heading or a note."""
    counted = [(name, counts) for name, counts in groups if counts is not None]
    header, *lines = format_table(["", *Counts._fields, ""], [[name, *_cells(counts)] for name, counts in counted])
    rows = iter(lines)
    return [header, *(name if counts is None else next(rows) for name, counts in groups)]


def _cells(counts: Counts) -> list[str]:
    percent = math.floor(1000 * counts.prepared_fraction()) / 10  # 100 % means all
    return [*(f"{count:,}" for count in counts), f"{percent:.1f} %"]


def _reason_lines(title: str, reasons: dict[str, Reason]) -> list[str]:
    if not reasons:
        return []
    shown = list(reasons.items())[:_NUM_REASONS]
    lines = format_table(
        None, [[f"{reason.num_videos:>10,} x {kind}", reason.example] for kind, reason in shown], align="<<"
    )
    num_more = sum(reason.num_videos for reason in reasons.values()) - sum(reason.num_videos for _, reason in shown)
    more = [f"{num_more:>10,} x {len(reasons) - len(shown)} others"] if num_more else []
    return [f"{title}, and an example each:", *lines, *more]


def _size_line(coverage: Coverage) -> str:
    encodings = ", ".join(f"{count:,} {name}" for name, count in coverage.encodings.items())
    return (
        f"{coverage.num_segments:,} rows, {coverage.seconds / 3600:,.2f} hours, {coverage.num_frames:,} frames; "
        f"{coverage.source_bytes / 1e6:,.1f} MB -> {coverage.stored_bytes / 1e6:,.1f} MB"
        + (f" (videos: {encodings})" if encodings else "")
    )
