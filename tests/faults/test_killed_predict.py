"""Predictions on Ray whose workers and driver are killed end as an undisturbed job does: `pytest -m faults`."""

import json
import os
from collections import Counter

import pyarrow.parquet as pq
import pytest

from tests.faults.training_faults import REPO, Job, end, wait_for
from tests.pipelines.evaluate.small_network import CLIP, save_network

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
NUM_VIDEOS = 400


class PredictJob(Job):
    """Every synthetic video under several names, and some files that are none."""

    def __init__(self, root, shards, weights):
        super().__init__(root, shards)
        self.folder = root / "predicted"
        videos = root / "videos"
        videos.mkdir()
        found = sorted(shards.rglob("*.mp4"))
        for number in range(NUM_VIDEOS):
            video = videos / f"{number:03}.mp4"
            if number % 50 == 49:
                video.write_bytes(b"no video" * 100)
            else:
                os.link(found[number % len(found)], video)
        options = {"--model": weights, "--output": self.folder, "--num_workers": 1, "--stride_seconds": 0.1}
        words = [str(word) for pair in options.items() for word in pair]
        self.command = [self.command[0], str(REPO / "jobs" / "predict.py"), str(videos), *words]

    def names(self):
        """The videos of all whole lines so far, in their order."""
        file = self.folder / "predictions.jsonl"
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line)["video"].rpartition("/")[2] for line in lines if line.endswith(b"\n")]

    def wait_for_more(self, num_lines):
        """Wait until it has written so many lines more; fail if it ends before."""
        before = len(self.names())
        wait_for(lambda: len(self.names()) >= before + num_lines or not self.is_running(), seconds=300)
        assert self.is_running(), self.last_line()

    def rows(self):
        """The table, by the name of the video."""
        rows = pq.read_table(self.folder / "predictions.parquet").to_pylist()
        return {row.pop("video").rpartition("/")[2]: row for row in rows}


@pytest.fixture(scope="module")
def weights(tiny_shards, tmp_path_factory):
    return save_network(tiny_shards, tmp_path_factory.mktemp("weights") / "model.safetensors", CLIP)


@pytest.fixture(scope="module")
def whole(tiny_shards, weights, tmp_path_factory):
    """The table of an undisturbed job."""
    with PredictJob(tmp_path_factory.mktemp("whole"), tiny_shards, weights) as job:
        assert job.run() == 0, job.last_line()
        assert len(job.names()) == NUM_VIDEOS
        rows = job.rows()
        assert Counter(row["status"] for row in rows.values()) == {"ok": NUM_VIDEOS - 8, "failed": 8}
        return rows


def test_a_job_that_is_killed_twice_scores_what_is_missing(whole, tiny_shards, weights, tmp_path):
    with PredictJob(tmp_path, tiny_shards, weights) as job:
        seen = []
        for _ in range(2):
            job.start()
            job.wait_for_more(60)
            job.kill_driver()
            seen.append(len(job.names()))
        assert job.run() == 0, job.last_line()
        print(f"\nkilled after {seen} of {NUM_VIDEOS} videos")
        assert job.rows() == whole
        scored = [name for name in job.names() if whole[name]["status"] == "ok"]
        assert len(scored) == len(set(scored)), "a video that has a prediction is not scored again"


@pytest.mark.parametrize("victim", ["ray::MapWorker(MapBatches(PartScorer", "ray::ReadRange"])
def test_a_killed_worker_loses_no_video(victim, whole, tiny_shards, weights, tmp_path):
    with PredictJob(tmp_path, tiny_shards, weights) as job:
        job.start()
        for _ in range(2):
            job.wait_for_more(60)
            end(wait_for(lambda: job.processes(victim), seconds=60)[0])
        assert job.driver.wait(timeout=600) == 0, job.last_line()
        assert job.rows() == whole
        assert len(job.names()) == NUM_VIDEOS
