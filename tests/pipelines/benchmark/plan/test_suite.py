"""What a transfer takes on a cluster: the arithmetic on made-up figures, and the figures from a small video."""

import json

import pytest
from pydantic import ValidationError

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.measuring.clips import write_moving_video
from pipelines.benchmark.plan.config import PlanSuiteConfig
from pipelines.benchmark.plan.suite import Counted, Measured, measure_core, plan_stages, run_suite
from pipelines.settings.command_line import load_config
from pipelines.transfer.config import TransferConfig
from t3d_core.errors import UserError

MEASURED = Measured(store_seconds=2.0, decode_seconds=0.01, source_bytes=1e6, stored_bytes=4e5, encoding="h264")
COUNTED = Counted(student_macs=2e11, teacher_macs=1e11, parameters=10**7)
RECIPE = {"data": {"shards": ["x"]}, "teacher": {"kind": "densenet121"}, "model": {"kind": "t3d_121"}}


def stages(*, cache, **changes):
    config = PlanSuiteConfig(nodes=2, cpus=10, gpus=4, clips=36_000, gpu_tflops=10, **changes)
    transfer = TransferConfig.model_validate(RECIPE | {"epochs": 10, "epoch_share": 0.5, "cache": cache})
    return {stage.name: stage for stage in plan_stages(config, transfer, MEASURED, COUNTED)}


def test_each_stage_takes_what_its_clips_take():
    found = stages(cache={"num_views": 5})
    prepare, teacher, transfer = found["prepare"], found["teacher"], found["transfer"]
    assert (prepare.core_hours, prepare.gpu_hours, prepare.limit) == (20, 0, "CPUs")
    assert prepare.hours == pytest.approx(1.0)  # on 20 CPUs
    assert (prepare.read_bytes, prepare.written_bytes) == (36e9, 14.4e9)
    assert teacher.core_hours == pytest.approx(0.5)
    assert teacher.gpu_hours == pytest.approx(5 * 36_000 * 2e11 / 1e13 / 3600)
    assert transfer.gpu_hours == pytest.approx(180_000 * 4e11 / 1e13 / 3600)
    assert transfer.core_hours == pytest.approx(0.5)
    assert (transfer.limit, transfer.hours) == ("GPUs", transfer.gpu_hours / 4)


def test_without_a_cache_the_teacher_is_part_of_every_step():
    found = stages(cache=None)
    assert found.keys() == {"prepare", "transfer"}
    assert found["transfer"].gpu_hours == pytest.approx(180_000 * 6e11 / 1e13 / 3600)


def test_slow_decoding_is_what_bounds_many_gpus():
    config = PlanSuiteConfig(nodes=1, cpus=1, gpus=64, clips=36_000)
    transfer = TransferConfig.model_validate(RECIPE | {"cache": None})
    (found,) = (each for each in plan_stages(config, transfer, MEASURED, COUNTED) if each.name == "transfer")
    assert (found.limit, found.hours) == ("CPUs", found.core_hours)


def test_settings_come_as_one_list(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("suite: plan\n")
    config = load_config(
        BenchmarkConfig, argv=["--plan", "nodes=3,gpus=5"], quickstart=recipe, program="python jobs/benchmark.py"
    )
    assert (config.plan.nodes, config.plan.gpus, config.plan.cpus) == (3, 5, 32)
    with pytest.raises(ValidationError, match="no such setting: gpu; choose from nodes, cpus, gpus"):
        PlanSuiteConfig.model_validate("gpu=5")
    with pytest.raises(ValidationError, match="give both"):
        PlanSuiteConfig(cpu_hour_price=0.05)


@pytest.fixture
def config(tmp_path):
    write_moving_video(tmp_path / "video.mp4", num_frames=50, height=96, width=128, seed=0)
    recipe = tmp_path / "transfer.yaml"
    recipe.write_text(
        "data: {shards: [x]}\nmodel: {kind: t3d_121}\nteacher: {kind: densenet121, crop_size: 64, num_frames: 2}\n"
        "clip: {num_frames: 16, crop_size: 64}\ncache: {num_views: 2}\n"
    )
    return PlanSuiteConfig(video=tmp_path / "video.mp4", recipe=recipe, cpu_hour_price=0.05, gpu_hour_price=2)


@pytest.mark.heavy
def test_a_plan_says_what_it_takes_and_from_what(config):
    report = run_suite(config, repeats=1)
    assert {row.case for row in report.rows} == {"prepare", "teacher", "transfer"}
    assert all(row.value >= 0 for row in report.rows)
    assert "1,000,000 clips on 8 nodes of 32 CPUs and 64 GPUs" in report.text
    assert "price" in report.text
    assert "bottleneck of the transfer: " in report.text
    assert report.text.count("assumed") == 3


def test_a_video_that_is_not_there_is_named(config, tmp_path):
    with pytest.raises(ValueError, match=r"plan.video .*absent.mp4 is no file"):
        measure_core(
            config.model_copy(update={"video": tmp_path / "absent.mp4"}),
            TransferConfig.model_validate(RECIPE),
            repeats=1,
        )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"epoch": 3}, "epoch: "),
        (
            {"teacher": {"kind": "exported", "weights": "t.pt2", "mean": [0, 0, 0], "std": [1, 1, 1]}},
            "plan.recipe .* has an exported teacher",
        ),
        ({}, "plan.video .*broken.mp4 cannot be decoded"),
    ],
)
def test_what_cannot_be_planned_is_told_with_its_name(settings, reason, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"broken")
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE | settings))
    config = PlanSuiteConfig(video=tmp_path / "broken.mp4", recipe=tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match=reason):
        run_suite(config, repeats=1)
