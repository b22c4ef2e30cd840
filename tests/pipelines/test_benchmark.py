"""The model benchmark: its rows, ratios, table and file."""

import json

import pytest
from pydantic import ValidationError

from pipelines.benchmark import BenchmarkConfig, BenchmarkRow, format_table, run_benchmark

COUNTS = {"parameters", "macs", "kept_for_backward"}
TIMES = {"forward", "train_step", "train_throughput"}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark") / "new" / "rows.json"


@pytest.fixture(scope="module")
def rows(output):
    run_benchmark(BenchmarkConfig(models=("densenet3d_121",), crop_size=32, repeats=1, output=output))
    return [BenchmarkRow(**row) for row in json.loads(output.read_text())]


def values(rows, metric):
    return {row.case: row.value for row in rows if row.metric == metric}


def test_every_net_and_peer_has_every_metric(rows):
    cases = {"densenet3d_121", "r3d_18", "s3d"}
    assert {(row.case, row.metric) for row in rows} == {(case, m) for case in cases for m in COUNTS | TIMES}
    assert {row.suite for row in rows} == {"model"}


def test_counts_are_exact(rows):
    assert values(rows, "parameters")["densenet3d_121"] == 11_658_896
    assert values(rows, "parameters")["r3d_18"] == 33_371_472
    # A 16 x 224 clip costs 31.27 GMAC; this one has 1/49 of its pixels.
    assert values(rows, "macs")["densenet3d_121"] == pytest.approx(31.27 / 49, rel=0.01)


def test_a_ratio_above_1_means_better_than_the_baseline(rows):
    for metric in COUNTS | TIMES:
        of_metric = values(rows, metric)
        ours = next(row for row in rows if row.case == "densenet3d_121" and row.metric == metric)
        gain = of_metric["densenet3d_121"] / of_metric["r3d_18"]
        assert ours.baseline == "r3d_18"
        assert ours.ratio == pytest.approx(gain if metric == "train_throughput" else 1 / gain)


def test_the_baseline_is_not_compared_with_itself(rows):
    assert {(row.baseline, row.ratio) for row in rows if row.case == "r3d_18"} == {(None, None)}


def test_throughput_is_clips_of_a_batch_over_the_time_of_its_step(rows):
    step, throughput = values(rows, "train_step"), values(rows, "train_throughput")
    assert {case: 2 / seconds for case, seconds in step.items()} == pytest.approx(throughput)


def test_the_file_is_the_list_of_rows(rows, output):
    written = json.loads(output.read_text())
    assert [BenchmarkRow(**row) for row in written] == rows
    assert list(written[0]) == ["suite", "case", "metric", "value", "unit", "baseline", "ratio"]


def test_the_table_puts_the_best_of_a_metric_first():
    def row(case, ratio):
        return BenchmarkRow("model", case, "forward", 1.0, "s", "r3d_18" if ratio else None, ratio)

    lines = format_table([row("slow", 0.5), row("r3d_18", None), row("fast", 4.0)]).splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["fast", "r3d_18", "slow"]
    assert [line.split()[-1] for line in lines] == ["4.00x", "baseline", "0.50x"]


def test_a_clip_too_small_for_a_net_is_refused_with_the_minimum():
    with pytest.raises(ValueError, match="at least 16 frames of 32 x 32 px"):
        run_benchmark(BenchmarkConfig(models=("t3d_121",), num_frames=8, crop_size=32))


@pytest.mark.parametrize("wrong", [{"batch": 3}, {"models": ("resnet",)}, {"repeats": 0}, {"suite": "decode"}])
def test_unknown_and_ill_typed_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        BenchmarkConfig(**wrong)


def test_every_setting_has_a_help_text():
    assert [name for name, field in BenchmarkConfig.model_fields.items() if not field.description] == []
