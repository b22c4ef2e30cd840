"""About 340 damaged, hostile and disguised files: each has a result, none is followed out of its folder, none hangs."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t3d_core.video.decoding import decode_frames
from tests.faults.training_faults import marked, title_of

REPO = Path(__file__).parents[2]
GUARD_SECONDS = 5
pytestmark = [pytest.mark.timeout(600), pytest.mark.heavy]


@pytest.fixture(scope="module")
def calls():
    """The connections to the address that the playlists call, which is `calls.address`."""

    class Calls(list):
        address = ""

    calls = Calls()
    with socket.create_server(("127.0.0.1", 0)) as server:
        calls.address = "{}:{}".format(*server.getsockname())

        def listen():
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                calls.append(peer)
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield calls


@pytest.fixture(scope="module")
def corpus(calls, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutated") / "corpus"
    script = Path(__file__).with_name("mutated_corpus.py")
    subprocess.run([sys.executable, str(script), str(folder), "--seed", "0", "--address", calls.address], check=True)
    return folder


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    """The folder that `prepare` wrote; the test prints its output and its time."""
    output = tmp_path_factory.mktemp("out")
    command = [
        sys.executable, str(REPO / "jobs" / "prepare.py"), "--dataset.kind", "folder", "--dataset.root",
        str(corpus / "videos"), "--output", str(output), "--short_side", "96", "--guard.seconds", str(GUARD_SECONDS),
        "--videos_per_shard", "16", "--max_failed_fraction", "1", "--tracking.uri", f"sqlite:///{output}.db",
    ]  # fmt: skip
    before = set(corpus.rglob("*"))
    environment = os.environ | {"LC_T3D_TEST": str(output)}  # LC_: the decoder's process inherits it
    start = time.monotonic()
    job = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
    )
    print(job.stdout, f"prepare took {time.monotonic() - start:.0f} s", sep="\n")
    assert job.returncode == 0
    assert set(corpus.rglob("*")) == before, "a file was written next to the sources"
    time.sleep(1)
    left = [title for pid in marked(f"LC_T3D_TEST={output}") if (title := title_of(pid))]
    assert not left, "a process is left"
    return output


@pytest.fixture(scope="module")
def expected(corpus):
    return json.loads((corpus / "expected.json").read_text())


@pytest.fixture(scope="module")
def videos(prepared):
    return {row["path"]: row for row in pq.read_table(prepared / "videos.parquet").to_pylist()}


def test_every_file_is_prepared_or_failed_with_a_reason(expected, videos, prepared):
    assert len(expected) >= 300
    assert videos.keys() == expected.keys()
    assert all(video["reason"] for video in videos.values() if not video["num_frames"])
    failures = pq.read_table(prepared / "failures.parquet").column("path").to_pylist()
    assert sorted(failures) == sorted(path for path, video in videos.items() if not video["is_prepared"])


def test_each_comes_out_as_its_kind_must(expected, videos):
    wrong = {
        path: videos[path]["reason"]
        for path, outcome in expected.items()
        if outcome is not None and not re.search(outcome, videos[path]["reason"] or "prepared")
    }
    assert wrong == {}


def test_no_address_was_called_and_the_file_outside_was_not_read(corpus, calls, prepared):
    assert calls == []
    whole = (corpus / "secret.mp4").read_bytes()
    assert whole == (corpus / "videos" / "whole" / "h264.mp4").read_bytes(), "or its rows would look like any others"
    rows = pa.concat_tables(pq.read_table(shard, columns=["path"]) for shard in (prepared / "shards").iterdir())
    assert not [path for path in rows.column("path").to_pylist() if path.startswith("playlist/")]


def test_every_stored_row_can_be_read_in_full(videos, prepared):
    num_rows = 0
    for shard in (prepared / "shards").iterdir():
        for row in pq.read_table(shard).to_pylist():
            frames_THWC = decode_frames(row["frames"], row["frame_offset"] + np.arange(row["num_frames"]))
            assert len(frames_THWC) == row["num_frames"] == videos[row["path"]]["num_frames"]
            num_rows += 1
    assert num_rows == sum(video["is_prepared"] for video in videos.values()) > 150


def test_undamaged_files_keep_every_frame(videos):
    kinds = ("whole/", "wrong_extension/", "odd_name/")
    assert {video["num_frames"] for path, video in videos.items() if path.startswith(kinds)} == {40}
