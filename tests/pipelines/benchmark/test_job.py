"""The benchmark: the rows, ratios and table of the model suite; files, MLflow and settings of all suites."""

import importlib
import inspect
import json
from pathlib import Path
from typing import get_args

import pytest
from mlflow import MlflowClient
from PIL import Image
from pydantic import ValidationError

from pipelines import benchmark
from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.decode.config import DecodeSuiteConfig
from pipelines.benchmark.job import run_benchmark
from pipelines.benchmark.measuring.rows import (
    BenchmarkRow,
    SuiteReport,
)
from pipelines.benchmark.model.config import ModelSuiteConfig
from pipelines.benchmark.prepare.config import PrepareSuiteConfig
from pipelines.settings.section import Section

pytestmark = pytest.mark.heavy

COUNTS = {"parameters", "macs", "training_macs", "kept_for_backward"}
TIMES = {"forward", "train_step"}
PEERS = {"r3d_18", "s3d"}  # the others take longer; model/test_suite.py has them all


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark") / "new" / "rows.json"


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture(scope="module")
def rows(output, tracking_uri):
    model = {
        "models": ("densenet3d_121",),
        "switches_of": None,
        "num_frames": 16,
        "crop_size": 32,
        "memory": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.benchmark.model.suite.PEERS", tuple(sorted(PEERS)))
        run_benchmark(BenchmarkConfig(model=model, repeats=1, output=output, tracking={"uri": tracking_uri}))
    return [BenchmarkRow(**row) for row in json.loads(output.read_text())]


def values(rows, metric):
    return {row.case: row.value for row in rows if row.metric == metric}


def test_every_net_and_peer_has_every_metric(rows):
    metrics = COUNTS | TIMES | {"train_throughput"}
    expected = {(case, metric) for case in {"densenet3d_121"} | PEERS for metric in metrics}
    ceilings = {("matmul fp32", "ceiling"), ("matmul bf16", "ceiling")}
    assert {(row.case, row.metric) for row in rows} == expected | ceilings
    assert {row.suite for row in rows} == {"model"}


def test_counts_are_exact(rows):
    assert values(rows, "parameters")["densenet3d_121"] == 11_658_896
    assert values(rows, "parameters")["r3d_18"] == 33_371_472
    # A 32 x 224 clip costs 60.03 GMAC with pooled transitions; this one has half its frames and 1/49 of its pixels.
    assert values(rows, "macs")["densenet3d_121"] == pytest.approx(60.03 / 2 / 49, rel=0.01)
    assert values(rows, "training_macs")["densenet3d_121"] > 2.8 * values(rows, "macs")["densenet3d_121"]


def test_a_ratio_above_1_means_faster_than_the_baseline(rows):
    for metric in TIMES:
        of_metric = values(rows, metric)
        ours = next(row for row in rows if row.case == "densenet3d_121" and row.metric == metric)
        assert ours.baseline == "r3d_18"
        assert ours.ratio == pytest.approx(of_metric["r3d_18"] / of_metric["densenet3d_121"])  # of the one round


def test_the_baseline_is_not_compared_with_itself(rows):
    assert {(row.baseline, row.ratio) for row in rows if row.case == "r3d_18"} == {(None, None)}


def test_throughput_is_clips_of_a_batch_over_the_time_of_its_step(rows):
    step, throughput = values(rows, "train_step"), values(rows, "train_throughput")
    assert {case: 2 / seconds for case, seconds in step.items()} == pytest.approx(throughput)


def test_the_file_is_the_list_of_rows(rows, output):
    written = json.loads(output.read_text())
    assert [BenchmarkRow(**row) for row in written] == rows
    assert list(written[0]) == ["suite", "case", "metric", "value", "unit", "baseline", "ratio", "note"]


def test_mlflow_keeps_the_rows_the_settings_and_the_table(rows, tracking_uri):
    client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["stage"] == "benchmark"
    assert run.data.params["model.crop_size"] == "32"
    assert run.data.metrics["model/parameters/densenet3d_121"] == 11_658_896
    ratios = {row.metric: row.ratio for row in rows if row.case == "densenet3d_121"}
    assert run.data.metrics["model/forward/densenet3d_121/ratio"] == pytest.approx(ratios["forward"])
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files >= {"rows.json", "table.txt", "recipe.yaml", "cost_by_size.png"}


def test_the_picture_of_costs_lies_beside_the_rows(rows, output):
    with Image.open(output.parent / "rows.cost_by_size.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 10  # lines of several colours


SUITES = get_args(BenchmarkConfig.model_fields["suite"].annotation)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_a_room_with_settings_and_a_run(name):
    config = importlib.import_module(f"pipelines.benchmark.{name}.config")
    suite = importlib.import_module(f"pipelines.benchmark.{name}.suite")
    of_suite = getattr(BenchmarkConfig(), name)
    assert type(of_suite).__module__ == config.__name__
    parameters = inspect.signature(suite.run_suite).parameters
    assert (list(parameters), parameters["config"].annotation) == (["config", "repeats"], type(of_suite))


def test_every_room_of_the_benchmark_is_a_choice_and_has_its_section():
    rooms = {path.parent.name for path in Path(benchmark.__file__).parent.glob("*/suite.py")}
    assert rooms == set(SUITES) == set(BenchmarkConfig.model_fields) - {"suite", "output", "repeats", "tracking"}


def test_the_chosen_suite_gets_its_settings_and_the_number_of_rounds(tmp_path, monkeypatch):
    got = []

    def run(config, *, repeats):
        got.append((config, repeats))
        return SuiteReport([], "nothing to show")

    monkeypatch.setattr("pipelines.benchmark.plan.suite.run_suite", run)
    config = BenchmarkConfig(suite="plan", plan={"nodes": 3}, repeats=7, tracking={"uri": f"sqlite:///{tmp_path}/m.db"})
    assert run_benchmark(config).startswith("nothing to show\nmlflow:")
    assert got == [(config.plan, 7)]
    assert got[0][0].nodes == 3


def test_a_batch_too_small_for_a_net_is_refused_before_anything_is_timed(tmp_path):
    config = BenchmarkConfig(
        model={"models": ("c3d",), "switches_of": None, "num_frames": 16, "crop_size": 32, "batch_size": 1},
        tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"},
    )
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        run_benchmark(config)


def test_a_clip_too_small_for_a_net_is_refused_with_the_minimum(tmp_path):
    config = BenchmarkConfig(
        model={"models": ("t3d_121",), "switches_of": None, "num_frames": 8, "crop_size": 32},
        tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"},
    )
    with pytest.raises(ValueError, match="at least 16 frames of 32 x 32 px"):
        run_benchmark(config)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 3},
        {"model": {"models": ("resnet",)}},
        {"repeats": 0},
        {"suite": "network"},
        {"decode": {"num_places": 0}},
    ],
)
def test_unknown_and_ill_typed_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        BenchmarkConfig(**wrong)


def test_every_setting_has_a_help_text():
    sections = [BenchmarkConfig, ModelSuiteConfig, DecodeSuiteConfig, PrepareSuiteConfig]
    undescribed = [
        name
        for section in sections
        for name, field in section.model_fields.items()
        if not field.description and not is_section(field.annotation)
    ]
    assert undescribed == []


def is_section(annotation):
    return isinstance(annotation, type) and issubclass(annotation, Section)
