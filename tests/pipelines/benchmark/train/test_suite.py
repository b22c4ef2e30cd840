"""The train benchmark: both sides do the same steps, every figure is of what it says, nothing unmeasured is met."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.benchmark.measuring import clips
from pipelines.benchmark.measuring.clips import describe_clip, write_moving_video
from pipelines.benchmark.measuring.object_store import StoreUse, watched_object_store
from pipelines.benchmark.train import suite as train_suite
from pipelines.benchmark.train.config import TrainSuiteConfig
from pipelines.benchmark.train.input import CEILING, WHOLE, InputRates, Reading
from pipelines.benchmark.train.memory import ROLES, Residents
from pipelines.benchmark.train.steps import Curve, StepRates, _curve
from pipelines.benchmark.train.suite import run_suite
from pipelines.train.config import TrainConfig

PEER = "DataLoader, decord"
TINY_NET = {"kind": "t3d", "growth_rate": 4, "block_config": (1, 1, 1, 1), "num_init_features": 8, "bn_size": 2}


@pytest.fixture
def sources(tmp_path):
    paths = [tmp_path / f"{seed}.mp4" for seed in range(2)]
    for seed, path in enumerate(paths):
        write_moving_video(path, num_frames=40, height=48, width=64, seed=seed)
    return [describe_clip(path) for path in paths]


@pytest.fixture
def measured(monkeypatch):
    """A suite whose measurements are given; what they say may be changed before it runs."""
    curve = Curve(seconds=10.0, num_clips=90, losses=(2.0, 1.0), first_batch_seconds=0.5)
    given = {
        "steps": StepRates([replace(curve, seconds=12.5)], [curve], StoreUse(5 * 10**6, 0)),
        "input": InputRates(
            "tiny", {WHOLE: [Reading(90, 1.0, 0.5)], CEILING: [Reading(100, 1.0)], PEER: [Reading(40, 2.0, 0.1)]}, {}
        ),
        "memory": Residents({role: [100, 100, 104] for role in ROLES}),
    }
    monkeypatch.setattr(train_suite, "_measure_steps", lambda *_, **__: given["steps"])
    monkeypatch.setattr(train_suite, "_measure_memory", lambda *_, **__: given["memory"])
    monkeypatch.setattr(train_suite, "_measure_input", lambda *_, **__: given["input"])
    return given


def run(sources):
    report = run_suite(TrainSuiteConfig(clips=(sources[0].path.parent,)), repeats=1)
    lines = report.text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("goal "))
    return report, {line.partition("  ")[0]: line.rsplit("  ", 1)[1] for line in lines[first + 1 :]}


def test_goals_are_met_or_missed_by_what_was_measured(measured, sources):
    _, verdict = run(sources)
    assert verdict == {
        "steps: whole path / plain loop from memory": "missed",
        "steps: points of the curves whose losses differ": "met",
        "steps: spilled MB": "met",
        "tiny: input path / decode ceiling": "met",
        "tiny: input path / best DataLoader on the sources": "met",
        "tiny: spilled MB": "met",
        **{f"resident, {role}: largest deviation of 3 epochs": "met" for role in ROLES},
    }


def test_other_losses_spilled_bytes_and_growing_memory_miss_their_goals(measured, sources):
    steps = measured["steps"]
    other = replace(steps.whole[0], losses=(2.0, 1.1))
    measured["steps"] = StepRates([other], steps.plain, StoreUse(10**6, 10**6))
    measured["memory"] = Residents({role: [100, 100, 106] for role in ROLES})
    _, verdict = run(sources)
    assert verdict["steps: points of the curves whose losses differ"] == "missed"
    assert verdict["steps: spilled MB"] == "missed"
    assert {verdict[f"resident, {role}: largest deviation of 3 epochs"] for role in ROLES} == {"missed"}


def test_ratios_are_of_rates_whatever_the_number_of_clips(measured, sources):
    rows = {(row.metric, row.case): row for row in run(sources)[0].rows}
    assert rows["steps", "whole path"].ratio == pytest.approx(0.8)
    assert rows["tiny/input", WHOLE].value == pytest.approx(90)
    assert rows["tiny/input", PEER].ratio == pytest.approx(20 / 90)
    assert measured["input"].over(PEER) == pytest.approx(90 / 20)


def test_without_peers_nothing_is_called_met(measured, sources):
    readings = {case: measured["input"].readings[case] for case in (WHOLE, CEILING)}
    measured["input"] = InputRates("tiny", readings, {PEER: "absent"})
    report, verdict = run(sources)
    assert verdict["tiny: input path / best DataLoader on the sources"] == "not measured"
    assert next(row for row in report.rows if row.case == PEER).note == "absent"


def test_absent_clips_are_named_and_videos_are_made_instead(measured, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "_GENERATED_FRAMES", 4)
    report = run_suite(TrainSuiteConfig(clips=(tmp_path / "nowhere",)), repeats=1)
    assert "nowhere: not on this machine" in report.text
    assert "generated: 4 source videos" in report.text


def test_the_first_point_of_a_curve_is_not_timed():
    config = TrainConfig(data={"shards": ("x",)}, model=TINY_NET, global_batch_size=4, epochs=1)
    points = [(0, {"val/loss": 3.0}), (1, {"throughput/time_to_first_batch_seconds": 0.25})]
    points += [
        (step, {"throughput/clips_per_second": rate, "train/loss": 1.0}) for step, rate in ((2, 1), (4, 8), (6, 2))
    ]
    assert _curve(config, points) == Curve(1.0 + 4.0, 16, (1.0, 1.0, 1.0), 0.25)


def test_the_object_store_is_weighed_at_its_fullest(local_ray, monkeypatch):
    import time

    import ray

    monkeypatch.setattr("pipelines.benchmark.measuring.object_store._LOOK_SECONDS", 0.05)
    with watched_object_store() as use:
        held = ray.put(np.zeros(20 << 20, np.uint8))
        time.sleep(0.3)
        del held
        time.sleep(0.3)
    assert 20 << 20 <= use.peak_bytes < 400 << 20
    assert use.spilled_bytes == 0


@pytest.mark.slow
def test_the_whole_path_and_the_plain_loop_make_the_same_steps(sources, tmp_path):
    suite = TrainSuiteConfig(model=TINY_NET, num_steps=4, crop_size=32, memory_num_videos=8)
    (tmp_path / "work").mkdir()
    steps = train_suite._measure_steps(suite, "tiny", sources, tmp_path / "work", repeats=1)
    assert steps.num_unequal_losses == 0
    assert len(steps.plain[0].losses) == 4
    assert steps.whole[0].num_clips == steps.plain[0].num_clips == 12


@pytest.mark.slow
def test_every_case_reads_all_its_clips(sources, tmp_path):
    suite = TrainSuiteConfig(
        input_num_frames=8, input_short_side=36, input_crop_size=32, input_num_batches=3, peer_num_batches=2
    )
    rates = train_suite._measure_input(suite, "tiny", sources, tmp_path / "work", repeats=1)
    assert {WHOLE, CEILING, "DataLoader, plain loop"} <= set(rates.readings)
    clips = {case: [reading.num_clips for reading in readings] for case, readings in rates.readings.items()}
    assert clips == {case: [3 * 16 if case in (WHOLE, CEILING) else 2 * 16] for case in rates.readings}


@pytest.mark.slow
def test_the_driver_a_train_worker_and_a_decoder_are_weighed_in_every_epoch(sources, tmp_path):
    suite = TrainSuiteConfig(memory_model=TINY_NET, memory_epochs=4, memory_num_videos=64)
    residents = train_suite._measure_memory(suite, "tiny", sources, tmp_path / "work")
    assert set(residents.bytes_by_epoch) == set(ROLES)
    assert all(len(values) == 3 and min(values) > 50 << 20 for values in residents.bytes_by_epoch.values())
