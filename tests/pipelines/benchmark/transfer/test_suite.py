"""The transfer benchmark: what is counted is what the recipe says, and goals are met or missed by what was measured."""

import shutil

import pytest

from pipelines.benchmark.measuring.clips import write_moving_video
from pipelines.benchmark.measuring.object_store import StoreUse
from pipelines.benchmark.train.memory import ROLES, Residents
from pipelines.benchmark.transfer import suite as transfer_suite
from pipelines.benchmark.transfer.config import TransferSuiteConfig
from pipelines.benchmark.transfer.input import (
    LITERAL_PAIRS,
    TRAINING,
    WITH_FEATURES,
    WITH_FRAMES,
    InputSizes,
    Reading,
    measure_transfer_input,
)
from pipelines.benchmark.transfer.steps import (
    ALL,
    CACHED,
    KEYS,
    LITERAL,
    ROLLED,
    StepCosts,
    StepSizes,
    TransferStepCosts,
    measure_transfer_steps,
)
from pipelines.benchmark.transfer.suite import run_suite
from pipelines.transfer.pair_loader import TeacherView
from t3d_core.video.clip_sampling import ClipView

TINY_NET = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 24, "bn_size": 2}


@pytest.mark.heavy
def test_the_counted_steps_are_those_of_the_recipes():
    sizes = StepSizes(batch_size=4, num_frames=16, crop_size=32, teacher_crop_size=32)
    of_way, teacher = measure_transfer_steps("t3d", TINY_NET, "resnet18", sizes, repeats=1)
    expected = {LITERAL: 4, ROLLED: 8, CACHED: 8, ALL: 16, KEYS: 4}
    assert {way: cost.num_pairs for way, cost in of_way.items()} == expected
    # The teacher leaves the step, and nothing else does.
    assert of_way[ROLLED].macs - of_way[CACHED].macs == teacher.macs
    # Literal and rolled differ in the head alone: fc 128 and fc 2 of twice the pairs, forward and backward.
    of_pair = 3 * (512 * 128 + 128 * 2)
    assert of_way[ROLLED].macs - of_way[LITERAL].macs == 4 * of_pair
    assert of_way[ALL].macs - of_way[CACHED].macs == 8 * of_pair
    # A clip among the keys: its likeness to each, and the gradient of it, are two products with 128 numbers a key.
    of_bank = 2 * 262_144 * 128
    assert 4 * of_bank < of_way[KEYS].macs < 4 * of_bank + of_way[CACHED].macs
    assert all(len(cost.seconds) == 1 for cost in of_way.values())


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Measurements that a test may change before the suite runs."""
    given = {
        "steps": TransferStepCosts(
            {
                LITERAL: StepCosts([8.0, 10.0], 400, 4),
                ROLLED: StepCosts([8.0, 10.4], 408, 8),
                CACHED: StepCosts([4.0, 5.0], 240, 8),
                ALL: StepCosts([4.0, 5.0], 260, 16),
                KEYS: StepCosts([4.0, 5.0], 250, 4),
            },
            StepCosts([4.0, 5.0], 160, 4),
        ),
        "input": {
            TRAINING: [Reading(100, 1.0, StoreUse())],
            WITH_FEATURES: [Reading(100, 1.04, StoreUse())],
            WITH_FRAMES: [Reading(100, 1.25, StoreUse())],
            LITERAL_PAIRS: [Reading(100, 2.0, StoreUse(0, 10**6))],
        },
    }
    monkeypatch.setattr(transfer_suite, "measure_transfer_steps", lambda *_, **__: given["steps"])
    monkeypatch.setattr(transfer_suite, "measure_transfer_input", lambda *_, **__: given["input"])
    monkeypatch.setattr(transfer_suite, "_measure_memory", lambda *_: Residents({role: [100, 100] for role in ROLES}))
    monkeypatch.setattr(transfer_suite, "make_data", lambda *_, **__: type("Data", (), {"shards": tmp_path}))
    return given


def run(tmp_path):
    write_moving_video(tmp_path / "a.mp4", num_frames=4, height=32, width=32, seed=0)
    report = run_suite(TransferSuiteConfig(clips=(tmp_path,)), repeats=2)
    lines = report.text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("goal "))
    verdict = {
        line[:76].strip().removeprefix(f"{tmp_path.name}: "): line.rsplit("  ", 1)[1] for line in lines[first + 1 :]
    }
    return {(row.metric.rpartition("/")[2], row.case): row for row in report.rows}, verdict


def test_a_pair_costs_what_its_step_costs_by_the_pairs_of_the_step(measured, tmp_path):
    rows, verdict = run(tmp_path)
    assert rows["ms_a_pair", LITERAL].value == pytest.approx(9000 / 4)
    assert rows["ms_a_pair", CACHED].value == pytest.approx(4500 / 8)
    assert rows["ms_a_pair", CACHED].ratio == pytest.approx(4)
    assert rows["gmac_a_pair", ROLLED].value == pytest.approx(408 / 8 / 1e9)
    # 8 views of a row serve 2 pairs in each of 150 epochs.
    assert rows["ms_a_pair_spread", "the cache's own"].value == pytest.approx(4500 / 4 * 8 / 300)
    assert rows["input", WITH_FRAMES].ratio == pytest.approx(0.8)
    assert verdict == {
        "a pair, rolled / literal: time": "met",
        "a pair, rolled / literal: multiply-adds": "met",
        "a pair, rolled, cached / literal: time": "met",
        "a pair, rolled, cached / literal: multiply-adds": "met",
        "transfer, with features / training input": "met",
        "transfer, with frames / training input": "missed",
        "transfer, with features: spilled MB": "met",
        "transfer, with frames: spilled MB": "met",
        "transfer, literal pairs: spilled MB": "missed",
        **{f"resident, {role}: largest deviation of 2 epochs": "met" for role in ROLES},
    }


def test_a_dear_pair_misses_its_goal(measured, tmp_path):
    of_way = measured["steps"].of_way
    of_way[ROLLED] = StepCosts([9.0, 11.0], 430, 8)
    of_way[CACHED] = StepCosts([8.0, 9.0], 350, 8)
    _, verdict = run(tmp_path)
    assert {verdict[name] for name in verdict if name.startswith("a pair")} == {"missed"}


@pytest.mark.slow
def test_every_case_of_the_input_reads_all_its_clips(synthetic_shards, tmp_path):
    shards = shutil.copytree(synthetic_shards, tmp_path / "copy", ignore=shutil.ignore_patterns("videos", "features"))
    clip = ClipView(num_frames=8, frame_stride=2, crop_size=32, short_side=37, short_video="loop")
    sizes = InputSizes(clip, TeacherView(8, 32, 37), feature_dim=5, batch_size=4, num_steps=3)
    readings = measure_transfer_input(shards, sizes, repeats=1)
    assert list(readings) == [TRAINING, WITH_FRAMES, WITH_FEATURES, LITERAL_PAIRS]
    for [reading] in readings.values():
        assert reading.num_clips == 12
        assert reading.seconds > 0
        assert reading.store.spilled_bytes == 0
