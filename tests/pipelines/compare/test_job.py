"""Comparisons of runs that are written to a store here: nothing is trained."""

import contextlib
import csv
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from html.parser import HTMLParser

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from pipelines.compare.config import CompareConfig
from pipelines.compare.job import run_compare
from pipelines.compare.paper_tables import TABLES, family_of
from pipelines.compare.plots import pareto_front
from pipelines.compare.runs import compare_runs
from pipelines.compare.videos import permutation_p_values

PAPER = {
    "model.kind": "t3d_121",
    "clip.num_frames": 32,
    "clip.frame_stride": 2,
    "clip.crop_size": 224,
    "clip.num_segments": 1,
    "global_batch_size": 64,
    "epochs": 200,
    "optimizer.lr": 0.1,
    "schedule.kind": "plateau",
    "data.class_share": 1.0,
    "data.fold": 1,
    "init_from": None,
    "inflate_from": None,
    "scaling.use_gpu": False,
    "scaling.resources_per_worker.CPU": 2.0,
}


class Store:
    """A store with runs as the jobs write them."""

    def __init__(self, folder):
        self.folder, self.uri = folder, f"sqlite:///{folder}/mlflow.db"
        self.client = mlflow.MlflowClient(self.uri)
        self.experiment = self.client.create_experiment("t3d", artifact_location=(folder / "files").as_uri())

    def train(self, *, seed, value=0.5, dataset="ucf101", status="FINISHED", tags=None, metrics=None, **params):
        """A training run of the paper's settings but for `params`; gives its id."""
        run_id = self._run({"stage": "train", **(tags or {})}, {**PAPER, "seed": seed, **params})
        found = {"val/clip_top1": value, "model/gmacs": 10.0, "cost/worker_hours": 1.5, **(metrics or {})}
        for name, each in found.items():
            self.client.log_metric(run_id, name, each, step=10)
        data = mlflow.entities.Dataset(dataset, "0123", "local", "{}")
        self.client.log_inputs(run_id, [mlflow.entities.DatasetInput(data, [])])
        self.client.set_terminated(run_id, status)
        return run_id

    def test(self, trained, *, value, correct=None, coverage=1.0, **params):
        """A test of a training run, with a table of its videos when `correct` says which are right."""
        way = {"data.split": "test", "num_crops": 1, "num_clips": None}
        run_id = self._run({"stage": "evaluate", "trained_by": trained}, {**way, **params})
        for name, each in {"video_top1": value, "coverage": coverage, "num_videos": 100}.items():
            self.client.log_metric(run_id, name, each)
        if correct is not None:
            path = self.folder / "scores.parquet"
            predicted = ["jump" if right else "walk" for right in correct]
            ids = [f"v{number}" for number in range(len(correct))]
            pq.write_table(pa.table({"video_id": ids, "label": ["jump"] * len(ids), "predicted": predicted}), path)
            self.client.log_artifact(run_id, str(path))
        self.client.set_terminated(run_id, "FINISHED")

    def trained_and_tested(self, *, value, correct=None, coverage=1.0, **settings):
        self.test(self.train(**settings), value=value, correct=correct, coverage=coverage)

    def compare(self, **config):
        return compare_runs(CompareConfig(tracking={"uri": self.uri}, **config), tracking_uri=self.uri)

    def _run(self, tags, params):
        run_id = self.client.create_run(self.experiment, tags=tags).info.run_id
        for name, value in params.items():
            self.client.log_param(run_id, name, str(value))
        return run_id


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_a_row_is_the_mean_and_spread_over_seeds_beside_the_papers_figure(store):
    for seed, value in enumerate((0.70, 0.74, 0.72)):
        store.trained_and_tested(seed=seed, value=value)
        store.trained_and_tested(seed=seed, value=value - 0.1, **{"model.kind": "densenet3d_121"})
    comparison = store.compare(table=4)
    t3d, densenet = comparison.rows
    assert (t3d.label, t3d.paper.top1, densenet.label, densenet.paper.top1) == ("T3D", 71.4, "DenseNet3D", 69.1)
    assert t3d.mean == pytest.approx(0.72)
    assert t3d.spread == pytest.approx(0.02)
    assert t3d.interval() == pytest.approx(stats.t.interval(0.95, 2, 0.72, 0.02 / 3**0.5))
    assert t3d.hours() == (pytest.approx(3 * 1.5 * 2), "CPU")
    assert comparison.notes == ()


def test_runs_that_are_not_the_papers_experiment_say_in_what(store):
    store.trained_and_tested(seed=0, value=0.5, dataset="weizmann6", coverage=0.5, epochs=3, **{"clip.crop_size": 64})
    notes = " ".join(store.compare(table=4).notes)
    assert notes.startswith("Not the paper's experiment: data weizmann6 (paper: UCF101, split 1); ")
    assert "epochs 3 (paper: 200)" in notes
    assert "clip.crop_size 64 (paper: 224)" in notes
    assert "50.0% of the listed videos (paper: all)" in notes
    assert "Fewer than three seeds" in notes


def test_the_axis_of_a_table_is_no_difference_from_it(store):
    for stride in (1, 16):
        store.trained_and_tested(seed=0, value=0.5, **{"clip.frame_stride": stride, "model.kind": "densenet3d_121"})
    comparison = store.compare(table=6)
    assert {row.label: row.paper.top1 for row in comparison.rows} == {"1": 65.2, "16": 60.5}
    assert not any("Not the paper's" in note for note in comparison.notes)


def test_weights_are_followed_to_the_run_that_they_are_from(store):
    student = store._run({"stage": "transfer"}, {"inflate_from": None})
    half = store.train(seed=0, dataset="kinetics400", tags={"started_from": student}, init_from="runs/student")
    started = {"init_from": "runs/x", "optimizer.lr": 0.1}
    store.trained_and_tested(seed=0, value=0.6, tags={"started_from": student}, **started)
    store.trained_and_tested(seed=0, value=0.7, tags={"started_from": half}, **started)
    rows = {row.label: (row.mean, row.paper.top1) for row in store.compare(table=8).rows}
    assert rows == {"T3D, Transfer": (0.6, 81.3), "T3D, FT-Transfer": (0.7, 84.7)}


def test_folds_of_a_seed_are_one_value(store):
    kinetics = store.train(seed=0, dataset="kinetics400")
    for fold, value in ((1, 0.9), (2, 0.8), (3, 0.7)):
        tags = {"started_from": kinetics}
        store.trained_and_tested(seed=0, value=value, tags=tags, init_from="runs/x", **{"data.fold": fold})
    [row] = [row for row in store.compare(table=10).rows if row.paper]
    assert (row.label, row.paper.top1) == ("T3D, ucf101", 90.3)
    assert row.values == (pytest.approx(0.8),)
    assert row.folds == ("1", "2", "3")


def test_of_two_runs_with_the_same_settings_and_seed_the_newer_one_counts(store):
    for value in (0.1, 0.9):
        store.trained_and_tested(seed=0, value=value)
    comparison = store.compare()
    assert [row.values for row in comparison.rows] == [(0.9,)]
    assert any("1 older runs" in note for note in comparison.notes)


def test_runs_of_other_settings_are_rows_of_their_own_beside_the_paper(store):
    """The newer one, of Table 6, does not take the place of Table 4's."""
    for stride, value in ((2, 0.69), (16, 0.60)):
        for seed in range(3):
            settings = {"model.kind": "densenet3d_121", "clip.frame_stride": stride}
            store.trained_and_tested(seed=seed, value=value, **settings)
    comparison = store.compare(table=4)
    assert [(row.label, row.mean, len(row.values)) for row in comparison.rows] == [
        ("DenseNet3D, frame_stride=2", pytest.approx(0.69), 3),
        ("DenseNet3D, frame_stride=16", pytest.approx(0.60), 3),
    ]
    assert comparison.notes == (
        "DenseNet3D, frame_stride=16 is not the paper's: clip.frame_stride 16 (paper: 2).",
        "The paper's figures are for orientation alone.",
    )


def test_what_the_paper_did_not_do_is_a_difference_whatever_it_is(store):
    store.trained_and_tested(seed=0, value=0.5, **{"label_smoothing": 0.1, "augmentation.mixup_alpha": 0.2})
    [note] = [note for note in store.compare(table=4).notes if note.startswith("Not the paper's")]
    assert "label_smoothing 0.1 (paper: 0.0)" in note
    assert "augmentation.mixup_alpha 0.2 (paper: 0.0)" in note


@pytest.mark.parametrize("kind", ["resnet3d_18", "t3d_121_depths_1", "densenet3d_121_wide"])
def test_another_network_of_the_family_is_not_the_papers(kind, store):
    store.trained_and_tested(seed=0, value=0.5, **{"model.kind": kind})
    notes = " ".join(store.compare(table=4).notes)
    assert f"network {kind} (paper: " in notes


def test_other_folds_than_the_papers_are_a_difference(store):
    store.trained_and_tested(seed=0, value=0.5, **{"data.fold": 2})
    assert any("folds 2 (paper: 1)" in note for note in store.compare(table=4).notes)


def test_seeds_of_other_folds_are_not_averaged(store):
    for seed, fold, value in ((0, 1, 0.9), (0, 2, 0.5), (1, 1, 0.9)):
        store.trained_and_tested(seed=seed, value=value, **{"data.fold": fold})
    rows = {row.label: row.values for row in store.compare(table=4).rows}
    assert rows == {"T3D, folds 1": (0.9,), "T3D, folds 1 2": (pytest.approx(0.7),)}


def test_tests_made_in_another_way_are_not_mixed_in(store):
    for seed in range(3):
        trained = store.train(seed=seed)
        store.test(trained, value=0.7)
        if seed == 0:
            store.test(trained, value=0.99, **{"data.split": "train"})
            store.test(trained, value=0.75, num_crops=10)
    comparison = store.compare(table=4)
    assert comparison.rows[0].values == (0.7, 0.7, 0.7)
    [note] = comparison.notes
    assert note.startswith("Tests with split test, num_crops 1 are compared, not those with split test, num_crops 10; ")


def test_tests_made_in_one_other_way_than_the_papers_say_so(store):
    store.test(store.train(seed=0), value=0.75, num_crops=10)
    assert any("tested with num_crops 10 (paper: 1)" in note for note in store.compare(table=4).notes)


def test_pooled_rows_say_in_what_their_runs_differ(store):
    for seed in range(2):
        for lr in (0.1, 0.2):
            store.train(seed=seed, value=lr, **{"optimizer.lr": lr})
    comparison = store.compare(group_by=("model.kind",))
    assert [(row.label, row.values, row.seeds) for row in comparison.rows] == [
        ("kind=t3d_121", (0.1, 0.2, 0.1, 0.2), ("0", "0", "1", "1"))
    ]
    assert "Runs of kind=t3d_121 differ in optimizer.lr." in comparison.notes


def test_points_of_one_name_in_two_searches_are_two_rows(store):
    for size in (48, 64):
        store.train(seed=0, value=size / 100, tags={"point": "T3D"}, **{"clip.crop_size": size})
    assert [row.label for row in store.compare().rows] == ["T3D, crop_size=64", "T3D, crop_size=48"]


def test_weights_of_unlike_transfers_are_unlike(store):
    for epochs, value in ((10, 0.5), (20, 0.6)):
        for seed in range(2):
            student = store._run({"stage": "transfer"}, {"epochs": epochs, "seed": seed})
            tags = {"started_from": student}
            store.trained_and_tested(seed=seed, value=value, tags=tags, init_from=f"runs/student-{epochs}-{seed}")
    rows = store.compare(table=8).rows
    assert [row.values for row in rows] == [(0.6, 0.6), (0.5, 0.5)]
    assert all(row.label.startswith("T3D, Transfer, init=transfer (") for row in rows)


def test_members_of_a_population_are_called_as_they_began_and_the_table_says_so(store):
    for seed in range(3):
        store.train(seed=seed, tags={"point": "lr=0.1", "search": "pop"}, metrics={"setting/optimizer.lr": 0.2})
        store.train(seed=seed, tags={"point": "lr=0.1"})
    comparison = store.compare()
    assert [row.label for row in comparison.rows] == ["lr=0.1, population=pop", "lr=0.1, population=-"]
    assert any("settings with which their trials began" in note for note in comparison.notes)


def test_what_is_no_accuracy_is_not_set_beside_the_papers(store, tmp_path):
    for kind, loss in (("t3d_121", 1.0), ("densenet3d_121", 0.5)):
        store.train(seed=0, metrics={"val/loss": loss}, **{"model.kind": kind})
    config = CompareConfig(table=4, metric="val/loss", tracking={"uri": store.uri}, output=tmp_path / "report")
    summary = run_compare(config)
    assert " paper " not in summary.splitlines()[1]
    assert summary.splitlines()[2].startswith("DenseNet3D")
    assert [row.label for row in store.compare(metric="cost/worker_hours").rows]


@pytest.mark.parametrize("num_videos", [3, 12, 2000])
def test_the_permutation_test_of_right_and_wrong_is_the_sign_test(num_videos):
    rng = np.random.default_rng(num_videos)
    difference_RV = rng.choice([-1.0, 0.0, 1.0], (4, num_videos), p=[0.28, 0.4, 0.32])
    difference_RV[-1] = 0.0
    expected = [
        stats.binomtest(int((row_V > 0).sum()), moved).pvalue if (moved := int((row_V != 0).sum())) else 1.0
        for row_V in difference_RV
    ]
    assert permutation_p_values(difference_RV) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("num_moved", [0, 1, 2, 6, 13])
def test_where_few_videos_differ_all_ways_are_taken(num_moved):
    difference_RV = np.zeros((2, 100))
    difference_RV[0, 10 : 10 + num_moved] = 1 / 3
    assert permutation_p_values(difference_RV) == pytest.approx([min(1.0, 2 * 0.5**num_moved), 1.0], rel=1e-12)
    assert permutation_p_values(difference_RV[:, :1]) == pytest.approx([1.0, 1.0])


def test_differences_of_means_over_seeds_are_tested_as_by_scipy():
    difference_RV = np.random.default_rng(0).choice(np.arange(-3, 4) / 3, (3, 60)) + np.array([[0.0], [0.1], [0.3]])
    expected = [
        stats.permutation_test((row_V,), np.mean, permutation_type="samples", n_resamples=9999, rng=1).pvalue
        for row_V in difference_RV
    ]
    assert permutation_p_values(difference_RV) == pytest.approx(expected, abs=0.015)


def test_what_is_not_a_number_comes_last(store):
    for seed, value in enumerate((0.2, math.nan, 0.9)):
        store.train(seed=0, value=value, epochs=seed)
    assert [row.values for row in store.compare().rows][:2] == [(0.9,), (0.2,)]


def test_rows_are_told_apart_by_what_differs_or_by_what_is_asked(store):
    for seed in range(3):
        for lr in (0.1, 0.2):
            store.train(seed=seed, value=lr, **{"optimizer.lr": lr, "epochs": 200 + seed})
    rows = store.compare(group_by=("optimizer.lr",)).rows
    assert [(row.label, len(row.values)) for row in rows] == [("lr=0.2", 3), ("lr=0.1", 3)]
    assert len(store.compare().rows) == 6


def test_a_search_is_its_trials(store):
    search = store._run({"stage": "search", "mlflow.runName": "depths"}, {})
    for seed in range(3):
        for epochs, point in enumerate(("one", "two")):
            store.train(seed=seed, tags={"mlflow.parentRunId": search, "point": point}, epochs=epochs)
    store.train(seed=0)
    assert sorted(row.label for row in store.compare(runs=("depths",)).rows) == ["one", "two"]


def test_what_did_not_end_and_what_has_no_such_metric_is_said(store):
    store.train(seed=0)
    store.train(seed=1, status="FAILED", tags={"reason": "the loss is not finite"})
    store.trained_and_tested(seed=2, value=0.7)
    notes = store.compare().notes
    assert any("is FAILED and not compared: the loss is not finite" in note for note in notes)
    assert any("1 of 2 runs have no video_top1" in note for note in notes)


def test_where_there_is_nothing_to_compare_the_error_says_what_there_is(store):
    with pytest.raises(ValueError, match="has no train run that ended"):
        store.compare()
    with pytest.raises(ValueError, match=r"experiment .other. is not in .* there are: Default, t3d"):
        store.compare(experiment="other")
    store.train(seed=0)
    with pytest.raises(ValueError, match="no run has the metric val/map; there are: cost/worker_hours, model/gmacs"):
        store.compare(metric="val/map")
    with pytest.raises(ValueError, match="is called 'mine'"):
        store.compare(runs=("mine",))


class Cells(HTMLParser):
    """Collects the cells of the table and the addresses that a page loads."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.loaded, self._in_cell = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self._in_cell = tag == "td"
        self.loaded += [value for name, value in attributes if name in ("src", "srcset", "href")]

    def handle_data(self, data):
        if self._in_cell:
            self.cells.append(data)
            self._in_cell = False


@pytest.fixture
def report(store, tmp_path):
    """A report on two networks that were tested on the same videos with three seeds."""
    rng = np.random.default_rng(0)
    for seed in range(3):
        right = rng.random(60) < 0.8
        for kind, correct, gmacs in (
            ("t3d_121", right, 100.0),
            ("densenet3d_121", right & (rng.random(60) < 0.7), 60.0),
        ):
            store.trained_and_tested(
                seed=seed,
                value=float(correct.mean()),
                correct=correct,
                metrics={"model/gmacs": gmacs},
                **{"model.kind": kind},
            )
    config = CompareConfig(table=4, tracking={"uri": store.uri}, output=tmp_path / "report")
    return run_compare(config), tmp_path / "report"


def test_the_report_says_the_same_in_every_form(report, store):
    summary, folder = report
    assert {"table.md", "table.csv", "comparison.html", "bars.png", "macs.png"} <= {
        path.name for path in folder.iterdir()
    }
    [first, second] = csv.DictReader(io.StringIO((folder / "table.csv").read_text()))
    page = Cells((folder / "comparison.html").read_text())
    assert float(first["video_top1"]) == np.mean([float(value) for value in first["values"].split()])
    for row in (first, second):
        shown = f"{float(row['video_top1']):.3f}"
        assert all(shown in text for text in (summary, (folder / "table.md").read_text(), " ".join(page.cells)))
    assert float(second["- first"]) == pytest.approx(float(second["video_top1"]) - float(first["video_top1"]))
    assert float(second["p"]) < 0.01
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    [run] = store.client.search_runs([store.experiment], "tags.stage = 'compare'")
    assert "comparison.html" in [file.path for file in store.client.list_artifacts(run.info.run_id)]


def test_other_videos_are_not_compared_one_by_one(store):
    store.trained_and_tested(seed=0, value=0.5, correct=[True, False])
    store.trained_and_tested(seed=0, value=0.5, correct=[True, False, True], **{"model.kind": "c3d"})
    summary = run_compare(CompareConfig(tracking={"uri": store.uri}, output=store.folder / "report"))
    assert " - first" not in summary


def test_the_pareto_front_is_what_nothing_beats_in_both(store):
    for value, gmacs in ((0.5, 1.0), (0.4, 2.0), (0.7, 3.0), (0.7, 4.0)):
        store.train(seed=0, value=value, epochs=int(gmacs), metrics={"model/gmacs": gmacs})
    rows = store.compare(group_by=("epochs",)).rows
    assert [row.label for row in pareto_front(rows, is_more_better=True)] == ["epochs=1", "epochs=3"]


BROWSER = pytest.mark.skipif(shutil.which("chromium") is None, reason="no headless browser: apt-get install chromium")


class Browser:
    """A browser without a window; pictures stay in pytest's folder of the test (`--basetemp` says where)."""

    def __init__(self, folder):
        self.folder = folder
        self._command = [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"),
            *(f"--user-data-dir={folder}/profile", "--window-size=1200,2400", "--virtual-time-budget=30000"),
        ]

    def look(self, address):
        """What the page has come to, what the browser complains of, and how large a picture of it is, in bytes."""
        ran = self._run("--dump-dom", address)
        self._run(f"--screenshot={self.folder}/page.png", address)
        complaints = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
        return ran.stdout, complaints, (self.folder / "page.png").stat().st_size

    def _run(self, *options):
        return subprocess.run([*self._command, *options], capture_output=True, text=True, timeout=120, check=True)


@BROWSER
def test_a_browser_shows_the_page_sorts_its_table_and_has_nothing_to_complain_of(report, tmp_path):
    page = (report[1] / "comparison.html").read_text()
    click = "<script>document.querySelectorAll('th button')[2].click()</script></body>"
    (tmp_path / "sorted.html").write_text(page.replace("</body>", click))
    shown, complaints, num_bytes = Browser(tmp_path).look((tmp_path / "sorted.html").as_uri())
    assert not complaints
    assert re.search(r'<th scope="col" aria-sort="ascending"><button[^>]*>video_top1', shown)
    assert Cells(shown).cells[0] == "DenseNet3D"
    assert Cells(page).cells[0] == "T3D"
    assert num_bytes > 50_000  # an empty page has a tenth


@BROWSER
def test_mlflows_own_view_compares_the_trials_of_a_search_by_what_they_are_called(store, tmp_path):
    search = store._run({"stage": "search", "mlflow.runName": "depths"}, {})
    names = [f"depth {depth}, seed {seed}" for depth in (1, 3) for seed in (0, 1)]
    runs = [
        store.train(seed=number % 2, value=0.25, tags={"mlflow.parentRunId": search, "mlflow.runName": name})
        for number, name in enumerate(names)
    ]
    with served(store.uri, tmp_path) as address:
        asked = {"runs": json.dumps(runs), "experiments": json.dumps([store.experiment])}
        shown, _, num_bytes = Browser(tmp_path).look(f"{address}/#/compare-runs?{urllib.parse.urlencode(asked)}")
    assert "Comparing 4 Runs" in shown
    assert all(text in shown for text in (*names, "optimizer.lr", "val/clip_top1", "0.25"))
    assert num_bytes > 50_000


@contextlib.contextmanager
def served(tracking_uri, folder):
    """The address of an MLflow server that shows a store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri, "--port", str(port)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--workers", "1"], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 90
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
                time.sleep(0.5)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_every_table_of_the_paper_has_lines_that_runs_can_match():
    assert set(TABLES) == {2, 3, 4, 5, 6, 8, 9, 10}
    for table in TABLES.values():
        assert len({tuple(sorted(row.match.items())) for row in table.rows}) == len(table.rows)
        assert all(0 < row.top1 < 100 for row in table.rows)
    assert [row.top1 for row in TABLES[6].rows] == [65.2, 69.1, 68.3, 60.5]


@pytest.mark.parametrize(
    ("kind", "family"),
    [("t3d_121_depths_1", "T3D"), ("resnet3d_50", "ResNet3D"), ("inception3d", "Inception3D"), ("res3d_18", "Res3D")],
)
def test_a_kind_of_network_is_called_as_in_the_paper(kind, family):
    assert family_of(kind) == family
