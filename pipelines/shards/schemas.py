"""The columns of a prepared folder's tables."""

import pyarrow as pa

FRAMES_COLUMN = "frames"
_VIDEO_FIELDS = {
    "video_id": pa.string(),
    "path": pa.string(),
    "label": pa.string(),
    "source": pa.string(),
    "splits": pa.list_(pa.string()),
    "start_seconds": pa.float64(),
    "end_seconds": pa.float64(),
}
# A file name need not be UTF-8: only its bytes open the file; shards and reports show it as text.
# listed_bytes: size of the file when the root was listed, null where there was none.
RECORD_SCHEMA = pa.schema(_VIDEO_FIELDS | {"path": pa.binary(), "listed_bytes": pa.int64()})
SHARD_SCHEMA = pa.schema(
    [
        ("segment_id", pa.string()),
        *_VIDEO_FIELDS.items(),
        ("dataset", pa.string()),
        ("fingerprint", pa.string()),
        ("source_bytes", pa.int64()),
        ("start_frame", pa.int64()),
        ("frame_offset", pa.int64()),
        ("num_frames", pa.int64()),
        ("fps", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("encoding", pa.string()),
        ("key_distance", pa.int32()),
        (FRAMES_COLUMN, pa.large_binary()),
    ]
)
# One row of a shard as the index of a training run needs it, so that 5,000 shards need not be opened.
INDEXED_COLUMNS = ["encoding", "frame_offset", "num_frames", "height", "width", "key_distance", "fps"]
_ROW_TYPE = pa.struct([("row", pa.int32()), *map(SHARD_SCHEMA.field, INDEXED_COLUMNS)])
REPORT_SCHEMA = pa.schema(
    [
        *_VIDEO_FIELDS.items(),
        ("shard", pa.string()),
        ("is_found", pa.bool_()),
        ("is_decoded", pa.bool_()),
        ("is_prepared", pa.bool_()),
        ("reason", pa.string()),
        ("encoding", pa.string()),
        ("num_segments", pa.int32()),
        ("num_frames", pa.int64()),
        ("seconds", pa.float64()),
        ("source_bytes", pa.int64()),
        ("stored_bytes", pa.int64()),
        ("shard_bytes", pa.int64()),
        ("rows", pa.list_(_ROW_TYPE)),  # fps: reports that were made before it was indexed lack it
        ("notes", pa.list_(pa.string())),  # last: reports that were made before it lack it
    ]
)
FAILURE_COLUMNS = ["video_id", "path", "label", "is_found", "reason"]
