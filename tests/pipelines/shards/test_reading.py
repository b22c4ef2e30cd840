from collections import Counter

import numpy as np
import pytest

from pipelines.shards import reading as shard_reading
from pipelines.shards.reading import read_frames
from pipelines.shards.schemas import FRAMES_COLUMN
from pipelines.shards.writing import open_shard

NUM_ROWS = 3


@pytest.fixture
def shard(tmp_path):
    """Three rows; their frames are no video: nobody decodes them here. (Below 4 kB they would stand in statistics.)"""
    path, rng = tmp_path / "shards" / "000000.parquet", np.random.default_rng(0)
    with open_shard(path) as file:
        for row in range(NUM_ROWS):
            numbers = {"frame_offset": 0, "num_frames": 30 + row, "height": 48, "width": 64, "key_distance": 12}
            texts = {name: f"{name} {row}" for name in ("segment_id", "video_id", "path", "label", "source", "dataset")}
            frames = rng.bytes(4200) + b"compressible" * 50
            file.append({**texts, **numbers, "splits": ["train"], FRAMES_COLUMN: frames})
    return path


def read_or_tell(path, row):
    try:
        return read_frames(str(path), row)
    except ValueError as error:
        return error


def change(content, rng):
    """Flip a bit, zero a block, cut the end off, or lose a piece."""
    changed, place, length = bytearray(content), int(rng.integers(len(content))), int(rng.integers(1, 700))
    match rng.choice(["bit", "zeros", "cut", "hole"], p=[0.7, 0.1, 0.1, 0.1]):
        case "bit":
            changed[place] ^= 1 << int(rng.integers(8))
        case "zeros":
            changed[place : place + length] = bytes(len(changed[place : place + length]))
        case "cut":
            del changed[place:]
        case "hole":
            del changed[place : place + length]
    return bytes(changed)


def test_damage_anywhere_gives_an_error_that_names_the_row_or_the_very_bytes(shard):
    content, rng = shard.read_bytes(), np.random.default_rng(0)
    frames = [read_frames(str(shard), row) for row in range(NUM_ROWS)]
    num_whole = Counter()
    for _ in range(1000):
        shard.write_bytes(change(content, rng))
        shard_reading._open_parquet.cache_clear()
        now = [read_or_tell(shard, row) for row in range(NUM_ROWS)]
        for row, found in enumerate(now):
            assert found == frames[row] or f"shard {shard} row {row} cannot be read" in str(found)
        num_whole[sum(isinstance(found, bytes) for found in now)] += 1
    assert min(num_whole[NUM_ROWS], num_whole[NUM_ROWS - 1], num_whole[0]) > 50, num_whole


def test_an_open_file_that_went_stale_is_opened_anew(shard, monkeypatch):
    expected, errors = read_frames(str(shard), 0), iter([OSError(116, "Stale file handle")])
    read_once = shard_reading._read_row

    def read_after_errors(path, row, columns):
        if error := next(errors, None):
            raise error
        return read_once(path, row, columns)

    monkeypatch.setattr(shard_reading, "_read_row", read_after_errors)
    assert read_frames(str(shard), 0) == expected
    errors = iter([OSError(5, "Input/output error")] * 2)
    with pytest.raises(ValueError, match="row 0 cannot be read: Input/output error"):
        read_frames(str(shard), 0)
