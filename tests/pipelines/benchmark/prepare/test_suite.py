"""The prepare benchmark: both sides do the same work, every process is weighed, nothing unmeasured is called met."""

import os
import subprocess
import sys

import pytest

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.job import run_benchmark
from pipelines.benchmark.measuring.clips import write_moving_video
from pipelines.benchmark.prepare import suite as prepare_suite
from pipelines.benchmark.prepare.config import PrepareSuiteConfig
from pipelines.benchmark.prepare.memory import Peaks, Planning, _watch, measure_memory, measure_planning
from pipelines.benchmark.prepare.rates import (
    OURS,
    PLAIN,
    Rates,
    _count_unequal,
    _started_loop,
    measure_rates,
    started_cases,
)
from pipelines.benchmark.prepare.suite import run_suite
from pipelines.prepare.make import prepare
from pipelines.shards.folder import ShardFolder
from pipelines.shards.writing import open_shard

TINY = {"num_videos": 4, "videos_per_shard": 2, "repeats": 1}


@pytest.fixture
def clips(tmp_path):
    paths = [tmp_path / f"{seed}.mp4" for seed in range(2)]
    for seed, path in enumerate(paths):
        write_moving_video(path, num_frames=12, height=48, width=64, seed=seed)
    return paths


@pytest.fixture
def measured(monkeypatch):
    """A suite whose measurements are given: prepare keeps 90 % of the loop on one core and 60 % on two."""
    speed = {(OURS, 1): 9.0, (PLAIN, 1): 10.0, (OURS, 2): 12.0, (PLAIN, 2): 20.0}

    def rates(cases, sources, *, encoding, num_videos, **_):
        return Rates(encoding, num_videos, 2, 0, dict(speed))

    def memory(num_videos):
        return Peaks(num_videos, 1.0, dict.fromkeys(("driver", "decoder", "ray"), 100) | {"worker": num_videos})

    monkeypatch.setattr(prepare_suite, "measure_rates", rates)
    monkeypatch.setattr(prepare_suite, "measure_memory", memory)
    monkeypatch.setattr(prepare_suite, "measure_planning", lambda num: Planning(num, 3, 61.0, 5 * 10**8, 10**8))
    monkeypatch.setattr(prepare_suite, "started_cases", lambda: open(os.devnull))
    return speed


def run(clips):
    return run_suite(PrepareSuiteConfig(clips=(clips[0].parent,), memory_num_videos=(100, 120)), repeats=1)


def verdicts(report):
    lines = report.text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("goal "))
    return {line.partition("  ")[0]: line.rsplit("  ", 1)[1] for line in lines[first + 1 :]}


def test_prepare_and_the_plain_loop_write_the_same_shards(local_ray, clips):
    with _started_loop(1) as loop:
        cases = {(OURS, 1): lambda config, _, output: prepare(config, output), (PLAIN, 1): loop}
        rates = [measure_rates(cases, clips, encoding=encoding, **TINY) for encoding in ("copy", "h264")]
    assert [(r.num_shards, r.num_unequal) for r in rates] == [(2, 0), (2, 0)]


@pytest.mark.slow
def test_every_case_has_its_own_cores(clips):
    with started_cases() as cases:
        rates = measure_rates(cases, clips, encoding="copy", **TINY)
    num_cores = min(2, len(os.sched_getaffinity(0)))
    expected = {(name, cores) for name in (OURS, PLAIN) for cores in range(1, num_cores + 1)}
    assert set(rates.videos_per_second) == expected
    assert rates.num_unequal == 0


def test_a_shard_with_other_bytes_is_counted(tmp_path):
    class Listing:
        num_shards = 2

    for folder, data in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        for shard in range(2):
            with open_shard(ShardFolder(tmp_path / folder).shard_file(shard)) as file:
                file.append({"segment_id": "x#0", "frames": b"same" if shard == 0 else data})
    assert _count_unequal(tmp_path / "a", tmp_path / "b", Listing()) == 0
    assert _count_unequal(tmp_path / "a", tmp_path / "c", Listing()) == 1


@pytest.mark.heavy
def test_the_peak_of_a_job_and_of_its_children_outlasts_their_need():
    child = "x = bytearray(90 << 20); del x; import time; time.sleep(1)"
    job = "import subprocess, sys; x = bytearray(40 << 20); del x; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    peaks = _watch(subprocess.Popen([sys.executable, "-c", job, child]))
    assert 40 << 20 < peaks["driver"] < 90 << 20
    assert 90 << 20 < peaks["ray"] < 140 << 20  # neither a Ray worker nor a decoder


@pytest.mark.heavy
def test_a_manifest_is_cut_into_shards_and_its_memory_is_told():
    planning = measure_planning(1000)
    assert (planning.num_ids, planning.num_shards) == (1000, 16)
    assert 0 < planning.bytes_before <= planning.peak_bytes


@pytest.mark.slow
def test_the_driver_a_worker_and_a_decoder_of_a_job_are_weighed():
    peaks = measure_memory(6)
    assert set(peaks.peak_bytes) == {"driver", "worker", "decoder", "ray"}
    assert all(num_bytes > 10 << 20 for num_bytes in peaks.peak_bytes.values())


def test_ratios_are_to_the_plain_loop_on_the_same_cores(measured, clips):
    rows = {(row.metric, row.case): row for row in run(clips).rows}
    assert rows["copy_1 core", OURS].ratio == pytest.approx(0.9)
    assert rows["h264_2 cores", OURS].ratio == pytest.approx(0.6)
    assert rows["copy_2 cores", PLAIN].ratio is None
    assert rows["copy_scaling", OURS].value == pytest.approx(12 / 9)


def test_goals_are_met_or_missed_by_what_was_measured(measured, clips):
    verdict = verdicts(run(clips))
    assert verdict["copy: prepare / plain loop, 1 core"] == "met"
    assert verdict["copy: prepare / plain loop, 2 cores"] == "missed"
    assert verdict["h264: prepare, 2 cores / 1 core"] == "missed"
    assert verdict["peak of driver: most / least for 100 / 120 videos"] == "met"
    assert verdict["peak of worker: most / least for 100 / 120 videos"] == "missed"
    assert verdict["500,000 ids listed, shuffled, cut and written: seconds"] == "missed"
    assert verdict["500,000 ids listed, shuffled, cut and written: peak GB, modules included"] == "met"


def test_on_a_machine_with_one_core_two_are_not_measured(measured, clips):
    del measured[OURS, 2], measured[PLAIN, 2]
    verdict = verdicts(run(clips))
    assert verdict["copy: prepare / plain loop, 2 cores"] == "not measured"
    assert verdict["copy: prepare, 2 cores / 1 core"] == "not measured"


@pytest.mark.heavy
def test_absent_clips_are_named_and_videos_are_made_instead(measured, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_suite, "_GENERATED_FRAMES", 4)
    config = BenchmarkConfig(
        suite="prepare",
        prepare={"clips": (tmp_path / "nowhere",), "memory_num_videos": (100,)},
        tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"},
    )
    text = run_benchmark(config)
    assert f"left out: {tmp_path}/nowhere: not on this machine" in text
    assert "sources: 4 generated videos" in text
