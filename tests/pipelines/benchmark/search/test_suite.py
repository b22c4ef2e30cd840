"""The search benchmark: what it reports follows from what was measured, and what it generates is what is compared."""

import csv

import mlflow
import pytest

from pipelines.benchmark.search import suite as search_suite
from pipelines.benchmark.search.config import SearchSuiteConfig
from pipelines.benchmark.search.generated_store import ComparisonCosts, make_store, measure_comparison
from pipelines.benchmark.search.suite import TrialTimes, measure_trials, run_suite

pytestmark = pytest.mark.heavy

TIMES = TrialTimes([11.0, 12.0, 16.0], [10.0, 10.0, 10.0], [0.5, 0.4, 0.6])


def test_all_runs_of_a_generated_store_are_compared(tmp_path):
    tracking_uri = make_store(tmp_path, num_runs=7, num_points=3, num_tested=4)
    client = mlflow.MlflowClient(tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    trained = [run for run in runs if run.data.tags["stage"] == "train"]
    assert len(trained) == len(runs) / 2 == 7
    assert all(len(client.get_metric_history(run.info.run_id, "val/loss")) == 3 for run in trained)
    costs = measure_comparison(tracking_uri, tmp_path)
    assert costs.seconds > 0
    assert costs.peak_bytes > 100e6
    with (tmp_path / "report" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["n"] for row in rows) == ["2", "5"]
    assert {row["videos"] for row in rows} == {"4.0"}


def test_a_comparison_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="is not there, so it has no runs"):
        measure_comparison(f"sqlite:///{tmp_path}/empty.db", tmp_path)


@pytest.mark.slow
def test_the_first_trial_is_not_counted(synthetic_shards, tmp_path):
    config = SearchSuiteConfig(epochs=1, num_trials=2)
    times = measure_trials(config, synthetic_shards, tmp_path)
    assert len(times.all_seconds) == len(times.own_seconds) == 1
    assert all(0 < first < own for first, own in zip(times.first_batch_seconds, times.own_seconds, strict=True))
    assert all(own < all_of_it for all_of_it, own in zip(times.all_seconds, times.own_seconds, strict=True))


def test_goals_are_met_or_missed_by_what_was_measured(monkeypatch, tmp_path):
    costs = {1: ComparisonCosts(5.0, 400_000_000), 2: ComparisonCosts(21.0, 420_000_000)}
    monkeypatch.setattr(search_suite, "measure_trials", lambda *_: TIMES)
    monkeypatch.setattr(search_suite, "make_data", lambda *_, **__: _Data())
    monkeypatch.setattr(search_suite, "make_store", lambda folder, num_runs, num_points, num_tested: num_runs)
    monkeypatch.setattr(search_suite, "measure_comparison", lambda num_runs, folder: costs[num_runs])
    report = run_suite(SearchSuiteConfig(clips=(tmp_path,), num_videos=1, num_runs=(1, 2)), repeats=1)
    values = {(row.case, row.metric): row.value for row in report.rows}
    assert values["search", "overhead"] == pytest.approx(30.0)
    assert values["trial, outside", "seconds"] == 2.0
    assert values["trial, first batch", "seconds"] == 0.5
    verdicts = [line.split() for line in report.text.splitlines() if line.endswith(("met", "missed"))]
    assert [words[-1] for words in verdicts] == ["missed", "met", "missed", "met"]


class _Data:
    shards = None
