import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import shard_reading
from pipelines.shard_reading import INDEX_COLUMNS, UnreadableShardError, read_frames, read_index
from pipelines.shards import FRAMES_COLUMN, SHARD_SCHEMA, open_shard
from tests.pipelines.damage import damage_index, without_checksums

NUM_ROWS, FINGERPRINT = 3, "0123456789ab" * 5


@pytest.fixture
def shard(tmp_path):
    """Three rows; their frames are no video: nobody decodes them here. (Below 4 kB they would stand in statistics.)"""
    path, rng = tmp_path / "shards" / "000000.parquet", np.random.default_rng(0)
    with open_shard(path) as append:
        for row in range(NUM_ROWS):
            numbers = {"frame_offset": 0, "num_frames": 30 + row, "height": 48, "width": 64, "key_distance": 12}
            texts = {name: f"{name} {row}" for name in ("segment_id", "video_id", "path", "label", "source", "dataset")}
            frames = rng.bytes(4200) + b"compressible" * 50
            append({**texts, **numbers, "splits": ["train"], "fingerprint": FINGERPRINT, FRAMES_COLUMN: frames})
    return path


def read_all(path):
    """The index of a shard and the frames of its rows; an error in the place of what cannot be read."""
    try:
        index = read_index(path, fingerprint=FINGERPRINT).to_pylist()
    except ValueError as error:
        return error, []
    return index, [read_or_tell(path, row) for row in range(len(index))]


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


def test_damage_anywhere_gives_an_error_that_names_the_shard_or_the_very_bytes(shard):
    content, rng = shard.read_bytes(), np.random.default_rng(0)
    index, frames = read_all(shard)
    assert len(index) == len(frames) == NUM_ROWS
    outcomes = {"index": 0, "row": 0}
    for _ in range(1000):
        shard.write_bytes(change(content, rng))
        shard_reading._open_parquet.cache_clear()
        index_now, frames_now = read_all(shard)
        if isinstance(index_now, ValueError):
            outcomes["index"] += 1
            continue
        assert index_now == index
        for row, now in enumerate(frames_now):
            if isinstance(now, ValueError):
                outcomes["row"] += 1
                assert f"shard {shard} row {row} cannot be read" in str(now)
            else:
                assert now == frames[row]
    assert min(outcomes.values()) > 50, outcomes


def test_a_shard_from_before_there_were_checksums_is_read(shard):
    before = read_all(shard)
    without_checksums(shard)
    shard_reading._open_parquet.cache_clear()
    assert read_all(shard) == before
    assert not any(isinstance(frames, ValueError) for frames in before[1])


def test_a_column_whose_name_was_damaged_is_missed(shard):
    with pq.ParquetFile(shard) as file:
        table = file.read()
    names = ["lab3l" if name == "label" else name for name in SHARD_SCHEMA.names]
    pq.write_table(table.rename_columns(names), shard, row_group_size=1)
    with pytest.raises(UnreadableShardError, match="label"):
        read_index(shard, fingerprint=FINGERPRINT)


def test_a_column_of_another_type_is_no_index(shard):
    with pq.ParquetFile(shard) as file:
        table = file.read()
    place = SHARD_SCHEMA.get_field_index("label")
    pq.write_table(table.set_column(place, "label", table.column("label").cast("binary")), shard, row_group_size=1)
    with pytest.raises(UnreadableShardError, match="column label is binary, not string"):
        read_index(shard, fingerprint=FINGERPRINT)


def test_a_shard_without_rows_is_whole(tmp_path):
    with open_shard(tmp_path / "empty.parquet"):
        pass
    table = read_index(tmp_path / "empty.parquet", fingerprint=FINGERPRINT)
    assert (len(table), table.column_names) == (0, INDEX_COLUMNS)


@pytest.mark.parametrize(("harm", "reason"), [(lambda path: path.unlink(), "is missing"), (damage_index, "cannot be")])
def test_a_missing_or_damaged_shard_is_told_from_one_of_other_settings(shard, harm, reason):
    with pytest.raises(
        ValueError, match=rf"{shard} was made with other settings \(fingerprint {FINGERPRINT}\)"
    ) as told:
        read_index(shard, fingerprint="other")
    assert not isinstance(told.value, UnreadableShardError)
    harm(shard)
    with pytest.raises(UnreadableShardError, match=reason):
        read_index(shard, fingerprint=FINGERPRINT)


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
