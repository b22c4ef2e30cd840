"""`prepare` from an address as from a folder, on a real S3 server on this machine."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from t3d_core.video.decoding import decode_frames
from t3d_core.video.storage import encode_video

REPO = Path(__file__).parents[2]
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret"}
pytestmark = pytest.mark.heavy


@pytest.fixture
def bucket(tmp_path):
    """The address of three videos, one of them broken."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    filesystem = fs.S3FileSystem(
        access_key="user", secret_key="secret", scheme="http", endpoint_override=f"{host}:{port}", region="us-east-1",
        allow_bucket_creation=True,
    )  # fmt: skip
    filesystem.create_dir("corpus")
    encode_video((np.full((48, 64, 3), 8 * i, np.uint8) for i in range(20)), path=tmp_path / "video.mp4", fps=10)
    whole = (tmp_path / "video.mp4").read_bytes()
    for name, data in (("aaaaaaaaaaa.mp4", whole), ("bb/bbbbbbbbbbb.mp4", whole), ("ccccccccccc.mp4", b"broken")):
        with filesystem.open_output_stream(f"corpus/videos/{name}") as stream:
            stream.write(data)
    yield f"s3://corpus/videos?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    server.stop()


@pytest.fixture
def scratch():
    """A folder for temporary files; its name is short, for Ray keeps its sockets there."""
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        yield Path(folder)


def test_a_list_of_ids_is_prepared_from_a_bucket(bucket, scratch, tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join(letter * 11 for letter in "abcd"))
    command = [
        sys.executable, str(REPO / "jobs" / "prepare.py"), "--dataset.kind", "youtube8m", "--dataset.root", bucket,
        "--dataset.annotations", "ids.txt", "--output", "out", "--segments_per_video", "2", "--max_segment_seconds",
        "0.5", "--max_failed_fraction", "0.5", "--tracking.uri", "sqlite:///mlflow.db",
    ]  # fmt: skip
    environment = os.environ | CREDENTIALS | {"PYTHONPATH": str(REPO), "TMPDIR": str(scratch)}
    job = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert job.returncode == 0, job.stderr
    assert "3 of 4 listed videos found in s3://corpus/videos" in job.stdout
    [shard] = (tmp_path / "out" / "shards").iterdir()
    rows = pq.read_table(shard).to_pylist()
    assert sorted(row["video_id"] for row in rows) == [letter * 11 for letter in "aabb"]
    for row in rows:
        place = np.arange(row["num_frames"])
        brightness = decode_frames(row["frames"], place + row["frame_offset"]).mean((1, 2, 3))
        assert len(place) in (5, 6), "half a second, and what is on screen when it begins"
        assert np.allclose(brightness, 8 * (row["start_frame"] + place), atol=3)
    reasons = {
        row["video_id"]: row["reason"] for row in pq.read_table(tmp_path / "out" / "failures.parquet").to_pylist()
    }
    assert reasons["ccccccccccc"].startswith("not a video")
    assert reasons["ddddddddddd"] == "not found"
    assert not list(scratch.glob("t3d-copy-*"))
