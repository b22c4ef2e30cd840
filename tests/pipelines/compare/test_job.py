"""Comparisons of runs that are written to a store here: nothing is trained."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest

from pipelines.compare.config import CompareConfig
from pipelines.compare.job import run_compare
from tests.pipelines.compare.browser import BROWSER, Browser


def test_what_is_no_accuracy_is_not_set_beside_the_papers(store, tmp_path):
    for kind, loss in (("t3d_121", 1.0), ("densenet3d_121", 0.5)):
        store.train(seed=0, metrics={"val/loss": loss}, **{"model.kind": kind})
    config = CompareConfig(table=4, metric="val/loss", tracking={"uri": store.uri}, output=tmp_path / "report")
    summary = run_compare(config)
    assert " paper " not in summary.splitlines()[1]
    assert summary.splitlines()[2].startswith("DenseNet3D")
    assert [row.label for row in store.compare(metric="cost/worker_hours").rows]


def test_results_that_were_kept_make_the_claims_of_a_table_again(store, tmp_path):
    rng = np.random.default_rng(0)
    sources = [f"scene{number // 4}" for number in range(48)]
    for seed in range(3):
        for lr, accuracy in ((0.1, 0.3), (0.2, 0.8)):
            correct = rng.random(48) < accuracy
            store.trained_and_tested(
                seed=seed, value=float(correct.mean()), correct=correct, sources=sources, **{"optimizer.lr": lr}
            )
    run_compare(CompareConfig(tracking={"uri": store.uri}, output=tmp_path / "report"))
    results = tmp_path / "report" / "results.csv"
    assert len(results.read_text().splitlines()) == 1 + 2 * 3 * 12
    claimed = run_compare(CompareConfig(results=(results,), reference="lr=0.1", output=tmp_path / "claims"))
    assert "supported" in claimed
    [claim] = csv.DictReader((tmp_path / "claims" / "claims.csv").open())
    [table] = [row for row in csv.DictReader((tmp_path / "report" / "table.csv").open()) if row["row"] == claim["row"]]
    assert float(claim["difference"]) == pytest.approx(float(table["- reference"]))
    assert float(claim["p_value"]) == pytest.approx(float(table["p unadjusted"]))
    assert float(claim["accuracy"]) == pytest.approx(float(table["video_top1"]))
    assert (tmp_path / "claims" / "claims.md").read_text().count("| supported |") == 1
    assert (tmp_path / "claims" / "claims.png").stat().st_size > 0


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
