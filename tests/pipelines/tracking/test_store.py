"""Which store it is, and how a call waits for one that is busy."""

import shutil
import sqlite3
import threading
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pipelines.tracking import store
from pipelines.tracking.models import fetch_weights
from pipelines.tracking.recorded import fetch_artifact, find_runs
from pipelines.tracking.store import StoreAwayError, open_client, resolve_tracking_uri
from t3d_core.errors import UserError
from tests.pipelines.tracking.new_runs import open_run, read_run


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        (None, "sqlite:////base/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:////base/mlflow.db"),
        ("sqlite:///sub/a.db", "sqlite:////base/sub/a.db"),
        ("sqlite:////abs/a.db", "sqlite:////abs/a.db"),
        ("mlruns", "file:///base/mlruns"),
        ("file:mlruns", "file:///base/mlruns"),
        ("/abs/mlruns", "file:///abs/mlruns"),
        ("file:///abs/mlruns", "file:///abs/mlruns"),
        ("https://mlflow.example:5000", "https://mlflow.example:5000"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
    ],
)
def test_a_tracking_uri_becomes_independent_of_the_working_folder(uri, absolute, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri(uri, base=Path("/base")) == absolute


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "a b", "\u00e4", "a%", "a;b", "\u65e5\u672c"])
def test_a_folder_of_any_name_holds_its_own_store(name, tmp_path, empty_store):
    base = tmp_path / name
    shutil.copytree(empty_store.parent, base)
    run = open_run(resolve_tracking_uri("sqlite:///mlflow.db", base=base))
    run.log_text("kept", "note.txt")
    [found] = find_runs(run.tracking_uri, experiment="t3d")
    assert fetch_artifact(run.tracking_uri, found, "note.txt").is_relative_to(base)
    with sqlite3.connect(base / "mlflow.db") as written:
        assert written.execute("select count(*) from runs").fetchone() == (1,)


def test_who_only_reads_makes_no_store(tmp_path):
    tracking_uri = f"sqlite:///{tmp_path}/absent/x.db"
    message = rf"the tracking store {tracking_uri} is not there, so it has no runs: give the store .* --tracking\.uri"
    with pytest.raises(UserError, match=message):
        find_runs(tracking_uri, experiment="t3d")
    with pytest.raises(UserError, match=message):
        fetch_weights("runs:/0123", tracking_uri=tracking_uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["sqlite:///a?b.db", "sqlite:///a?b=c/m.db", "sqlite:///a%20b/m.db"])
def test_an_address_that_means_another_file_than_it_seems_is_refused(uri, tmp_path):
    (tmp_path / "a%20b").mkdir()
    with pytest.raises(UserError, match=r"tracking\.uri sqlite:///a.* means the file .*: write a % .* as %25"):
        resolve_tracking_uri(uri, base=tmp_path)


def test_options_and_codes_of_an_address_are_kept(tmp_path):
    for given in ("m.db?timeout=5", "a%20b.db", "100%.db"):
        assert resolve_tracking_uri(f"sqlite:///{given}", base=tmp_path) == f"sqlite:///{tmp_path}/{given}"


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:se/c@ret@host/mlflow",
        "postgresql://mlflow:se/c@ret@host/mlflow",
        "postgresql://mlflow@host/mlflow?sslmode=require&password=se/c@ret",
        "mysql+pymysql://mlflow@host/mlflow?passwd=se/c@ret",
        "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dse/c@ret",
    ],
)
def test_a_password_in_the_uri_is_refused_without_repeating_it(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=r"contains a password.*PGPASSWORD") as told:
        resolve_tracking_uri(None, base=Path("/base"))
    assert not any(part in str(told.value) for part in ("se/c", "ret@"))


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://mlflow@host:5432/mlflow",
        "http://host:5000/team@x",
        "http://host:5000/p?x=a@b",
        "file:///x:y@z",
    ],
)
def test_an_address_without_a_password_is_taken_as_it_is(uri):
    assert resolve_tracking_uri(uri, base=Path("/base")) == uri


def test_the_configured_uri_comes_before_the_environment_and_that_before_the_default(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///env.db")
    assert resolve_tracking_uri(None, base=Path("/base")) == "sqlite:////base/env.db"
    assert resolve_tracking_uri("http://host", base=Path("/base")) == "http://host"


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [("sqlite:///~/a.db", "sqlite:////home/ada/a.db"), ("~/mlruns", "file:///home/ada/mlruns")],
)
def test_a_tilde_in_the_environment_is_the_home_folder(uri, absolute, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert resolve_tracking_uri(None, base=Path("/base")) == absolute


@pytest.mark.parametrize("uri", ["htp://localhost:5000", "localhost:5000", "postgres://host/db"])
def test_an_address_of_no_kind_that_mlflow_knows_is_refused_with_those_that_it_knows(uri):
    with pytest.raises(UserError, match=rf"{uri} is of no kind .* write a server as http://HOST:5000, or give another"):
        open_client(uri)


def test_a_folder_is_refused_as_a_store_unless_mlflow_may_write_there(tmp_path, monkeypatch):
    uri = resolve_tracking_uri("mlruns", base=tmp_path)
    with pytest.raises(
        UserError, match=r"is a folder, in which MLflow .* keeps no runs unless MLFLOW_ALLOW_FILE_STORE"
    ):
        open_client(uri)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert open_client(uri).tracking_uri == uri


def test_a_store_whose_folder_cannot_be_written_to_is_refused_with_the_cure():
    with pytest.raises(UserError, match=r"because /proc/no/mlflow\.db\.lock cannot be written .*: make its folder one"):
        open_client("sqlite:////proc/no/mlflow.db")


def test_a_call_waits_for_a_locked_sqlite_store(run, monkeypatch):
    """MLflow waits 20 s by itself; here it is made to give up at once."""
    busy = sqlite3.connect(run.tracking_uri.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    monkeypatch.setattr(store, "_SECONDS_BETWEEN_TRIES", 0.1)
    tries = []
    log_batch = MlflowClient.log_batch

    def impatient_log_batch(client, *arguments, **settings):
        tries.append(time.monotonic())
        if busy.in_transaction:
            raise mlflow.MlflowException("(sqlite3.OperationalError) database is locked")
        log_batch(client, *arguments, **settings)

    monkeypatch.setattr(MlflowClient, "log_batch", impatient_log_batch)
    busy.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.5, busy.execute, args=("COMMIT",)).start()
    run.log_params({"optimizer.lr": 0.1})
    assert len(tries) > 1
    assert read_run(run).data.params == {"optimizer.lr": "0.1"}
    monkeypatch.setattr(store, "_SECONDS_OF_PATIENCE", 0.0)
    busy.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreAwayError, match=r"database is locked.*start the job again"):
        run.set_tags({"a": "b"})
