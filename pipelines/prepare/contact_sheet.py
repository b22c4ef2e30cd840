"""Some rows of the shards become one picture, so that a person sees at once what the training data look like.

Each strip is one segment: six frames evenly over its time, from the first to the last, with a text below them:

    [frame][frame][frame][frame][frame][frame]   [frame][frame][frame][frame][frame][frame]
    label  video#segment   split, seconds ...    label  video#segment   split, seconds ...

A segment whose frames cannot be decoded has the reason in their place.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from pipelines.runtime.drawn_text import fitted_text, font_parts, text_length, write_text
from pipelines.runtime.files import whole_file
from pipelines.runtime.fonts import find_fonts, legible
from pipelines.shards.folder import ShardFolder
from pipelines.shards.schemas import FRAMES_COLUMN
from t3d_core.errors import UserError
from t3d_core.video.decoding import decode_frames

_NUM_FRAMES = 6
_MAX_ROWS_OF_ONE_COLUMN = 6
_CANDIDATES_PER_SEGMENT = 20

# All in pixels.
_FRAME_HEIGHT, _MAX_FRAME_WIDTH, _FRAME_GAP = 96, 171, 2
_MIN_STRIP_WIDTH, _CAPTION_HEIGHT = 640, 30
_MARGIN, _TITLE_HEIGHT, _GAP = 16, 34, 10
_TITLE_SIZE, _LABEL_SIZE, _DETAIL_SIZE = 19, 15, 13
_PAPER, _UNREADABLE, _INK, _FAINT = (244, 244, 241), (226, 226, 222), (20, 20, 20), (95, 95, 95)


class _Strip(NamedTuple):
    pictures: list[Image.Image]
    label: str
    name: str
    details: str

    def width(self) -> int:
        return sum(picture.width + _FRAME_GAP for picture in self.pictures) - _FRAME_GAP


def write_contact_sheet(folder: ShardFolder, path: Path, *, num_segments: int = 12, seed: int = 0) -> None:
    """Draw random rows of a prepared folder, of as many classes as possible, as a PNG file.

    Args:
        folder: a finished one; if it has no rows, the sheet states that.
        path: the PNG file; complete or absent.
        num_segments: rows to draw, or all where there are fewer.
        seed: of the choice; the same folder and seed give the same picture.
    """
    shards = [folder.shard_file(shard) for shard in range(folder.num_finished_shards())]
    chosen = _choose_rows(shards, num_segments=num_segments, rng=np.random.default_rng(seed))
    rows = [_read_row(shard, row) for shard, row in chosen]
    title = _title(folder, num_shown=len(rows))
    find_fonts([title, *(row["label"] or "" for row in rows), *(row["segment_id"] for row in rows)])
    with whole_file(path) as partial:
        _draw_sheet([_strip(row) for row in rows], title=legible(title)).save(partial, format="PNG")


def _choose_rows(shards: list[Path], *, num_segments: int, rng: np.random.Generator) -> list[tuple[Path, int]]:
    """(shard file, row), sorted by class: a row of each class in turn, from as few random shards as give a choice."""
    rows_by_label: dict[str, list[tuple[Path, int]]] = {}
    num_candidates = 0
    for shard in rng.permutation(len(shards)):
        labels = pq.read_table(shards[shard], columns=["label"]).column("label").to_pylist()
        for row in rng.permutation(len(labels)):
            rows_by_label.setdefault(labels[row] or "", []).append((shards[shard], int(row)))
        num_candidates += len(labels)
        if num_candidates >= _CANDIDATES_PER_SEGMENT * num_segments:
            break
    names = sorted(rows_by_label)
    shuffled = [names[place] for place in rng.permutation(len(names))]
    turns = [(turn, label) for turn in range(num_segments) for label in shuffled if turn < len(rows_by_label[label])]
    return [rows_by_label[label][turn] for label, turn in sorted((label, turn) for turn, label in turns[:num_segments])]


def _read_row(shard: Path, row: int) -> dict[str, Any]:
    with pq.ParquetFile(shard) as file:
        return file.read_row_group(row).to_pylist()[0]


def _strip(row: dict[str, Any]) -> _Strip:
    details = [
        row["splits"][0] if len(row["splits"]) == 1 else f"fold 1 {row['splits'][0]}",
        f"{row['num_frames'] / row['fps']:.1f} s",
        f"{row['width']}x{row['height']}",
        f"{row['fps']:.3g} fps",
        f"{row['encoding']} {len(row[FRAMES_COLUMN]) / 1000:,.0f} kB",
    ]
    return _Strip(
        pictures=_pictures(row),
        label=legible(row["label"] or "unlabelled"),
        name=legible(row["segment_id"]),
        details=", ".join(details),
    )


def _pictures(row: dict[str, Any]) -> list[Image.Image]:
    """The frames; if they cannot be decoded, one picture with the reason."""
    indices = np.linspace(0, row["num_frames"] - 1, _NUM_FRAMES).round().astype(np.int64)
    scale = min(_FRAME_HEIGHT / row["height"], _MAX_FRAME_WIDTH / row["width"])
    size = max(1, round(scale * row["height"])), max(1, round(scale * row["width"]))
    try:
        frames_THWC = decode_frames(row[FRAMES_COLUMN], indices + row["frame_offset"], size=size)
    except UserError as error:
        return [_notice(f"cannot be read: {error}")]
    return [Image.fromarray(frame_HWC) for frame_HWC in frames_THWC]


def _notice(text: str) -> Image.Image:
    notice = Image.new("RGB", (_MIN_STRIP_WIDTH, _FRAME_HEIGHT), _UNREADABLE)
    shown = fitted_text(legible(text), _LABEL_SIZE, _MIN_STRIP_WIDTH - 2 * _GAP)
    write_text(ImageDraw.Draw(notice), shown, _LABEL_SIZE, left=_GAP, baseline=_FRAME_HEIGHT // 2, colour=_INK)
    return notice


def _title(folder: ShardFolder, *, num_shown: int) -> str:
    videos = pq.read_table(folder.videos_file, columns=["encoding", "num_segments"])
    sums = videos.group_by("encoding").aggregate([("num_segments", "sum")]).sort_by("encoding").to_pylist()
    encodings = [f"{row['num_segments_sum']:,} as {row['encoding']}" for row in sums if row["num_segments_sum"]]
    num_rows = sum(row["num_segments_sum"] for row in sums)
    description = folder.describe()
    classes = f"{len(description['class_names']):,} classes" if description["class_names"] else "unlabelled"
    shown = f"{num_shown} random rows of {num_rows:,}" if num_rows else "no rows, because no video could be prepared"
    stored = f"; stored {', '.join(encodings)}" if encodings else ""
    return f"{description['dataset']}: {shown}; {classes}{stored}"


def _draw_sheet(strips: list[_Strip], *, title: str) -> Image.Image:
    num_columns = 1 if len(strips) <= _MAX_ROWS_OF_ONE_COLUMN else 2
    width = max([_MIN_STRIP_WIDTH, *(strip.width() for strip in strips)])
    height = _FRAME_HEIGHT + _CAPTION_HEIGHT + _GAP
    num_lines = -(-len(strips) // num_columns)
    size = num_columns * (width + _MARGIN) + _MARGIN, _MARGIN + _TITLE_HEIGHT + num_lines * height
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    title = fitted_text(title, _TITLE_SIZE, size[0] - 2 * _MARGIN)
    highest = min((font.getbbox(run, anchor="ls")[1] for font, run in font_parts(title, _TITLE_SIZE)), default=0)
    write_text(draw, title, _TITLE_SIZE, left=_MARGIN, baseline=_MARGIN - highest, colour=_INK)
    for place, strip in enumerate(strips):
        column, line = divmod(place, num_lines)
        left, top = _MARGIN + column * (width + _MARGIN), _MARGIN + _TITLE_HEIGHT + line * height
        _draw_strip(sheet, strip, left=left, top=top, width=width)
    return sheet


def _draw_strip(sheet: Image.Image, strip: _Strip, *, left: int, top: int, width: int) -> None:
    picture_left = left
    for picture in strip.pictures:
        sheet.paste(picture, (picture_left, top))
        picture_left += picture.width + _FRAME_GAP
    draw = ImageDraw.Draw(sheet)
    baseline = top + strip.pictures[0].height + 18
    label = fitted_text(strip.label, _LABEL_SIZE, 0.4 * width)
    write_text(draw, label, _LABEL_SIZE, left=left, baseline=baseline, colour=_INK)
    name_left = left + text_length(label, _LABEL_SIZE) + _GAP
    details_left = left + width - text_length(strip.details, _DETAIL_SIZE)
    name = fitted_text(strip.name, _DETAIL_SIZE, details_left - name_left - _GAP)
    write_text(draw, name, _DETAIL_SIZE, left=name_left, baseline=baseline, colour=_FAINT)
    write_text(draw, strip.details, _DETAIL_SIZE, left=details_left, baseline=baseline, colour=_FAINT)
