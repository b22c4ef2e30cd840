"""Small videos, settings to prepare them, and what there is afterwards."""

from fractions import Fraction

import av
import numpy as np
import pyarrow.parquet as pq

from pipelines.prepare.config import (
    FolderDatasetConfig,
    PrepareConfig,
    PrepareJobConfig,
)
from pipelines.prepare.make import prepare
from pipelines.tracking.config import TrackingConfig
from t3d_core.video.storage import encode_video


def write_video(path, *, num_frames=30, fps=10.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_video((np.full((36, 48, 3), 5 * i % 256, np.uint8) for i in range(num_frames)), path=path, fps=fps)


def write_recording(path, *, num_frames, fps, stated_fps):
    """A Matroska file whose header states another rate than its time stamps, as browsers and webcams write them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=stated_fps)
        stream.height, stream.width, stream.pix_fmt = 36, 48, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((36, 48, 3), 5 * index % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(index * 1000 / fps), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def config(root, **settings):
    return PrepareConfig(dataset=FolderDatasetConfig(root=str(root)), videos_per_shard=4, **settings)


def job_config(tmp_path, **settings):
    return PrepareJobConfig(tracking=TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"), **settings)


def prepare_and_count(settings, output):
    """Give the listed videos, those that were not prepared, and the rows."""
    coverage = prepare(settings, output)
    return coverage.total.listed, coverage.total.listed - coverage.total.prepared, coverage.num_segments


def failures_of(output):
    return {row["video_id"]: row["reason"] for row in pq.read_table(output / "failures.parquet").to_pylist()}


def modification_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def write_videos(root):
    for label in ("left", "right"):
        for name in ("a", "b"):
            write_video(root / label / f"{name}.mp4", num_frames=8)


def killed(*_):
    raise KeyboardInterrupt


def rows_of(index):
    """(video, its bytes) of every row, sorted: what is there twice is here twice."""
    return sorted((name, index.frames(place)) for place, name in enumerate(index.video_id_N))
