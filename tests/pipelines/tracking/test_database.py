"""Databases that MLflow cannot use are refused at once, each with its cure."""

import sqlite3
import time

import pytest
from sqlalchemy.exc import NoSuchModuleError

from pipelines.tracking.database import check_database, is_database
from t3d_core.errors import UserError


def change(tracking_uri, statement):
    with sqlite3.connect(tracking_uri.removeprefix("sqlite:///")) as database:
        database.execute(statement)


def test_what_is_a_database_is_told_by_the_scheme():
    databases = [
        "sqlite:///a.db",
        "postgresql://h/db",
        "postgresql+psycopg2://h/db",
        "mysql+pymysql://h/db",
        "mssql://h/d",
    ]
    assert all(map(is_database, databases))
    assert not any(map(is_database, ["http://h", "file:///mlruns", "databricks://profile"]))


def test_a_store_of_this_version_and_one_without_tables_are_accepted(tracking_uri, tmp_path):
    check_database(tracking_uri)
    check_database(f"sqlite:///{tmp_path}/new.db")


def test_a_store_of_an_older_mlflow_is_refused_with_the_command_that_upgrades_it(tracking_uri):
    change(tracking_uri, "UPDATE alembic_version SET version_num = 'bd07f7e963c5'")
    with pytest.raises(
        UserError, match=rf"made by an older version .*: copy it, then run `mlflow db upgrade {tracking_uri}`"
    ):
        check_database(tracking_uri)


def test_a_store_of_a_newer_mlflow_is_refused(tracking_uri):
    change(tracking_uri, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(
        UserError, match=r"made by a newer version of MLflow than .*: install that version of MLflow, or"
    ):
        check_database(tracking_uri)


def test_a_database_of_another_program_is_left_to_it(tmp_path):
    uri = f"sqlite:///{tmp_path}/mine.db"
    change(uri, "CREATE TABLE runs (distance)")
    with pytest.raises(UserError, match=r"is a database of another program \(tables: runs\): leave it to that program"):
        check_database(uri)


@pytest.mark.parametrize("kind", ["text", "folder"])
def test_what_is_no_database_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "mlflow.db"
    path.write_text("no database, in many words: " * 9) if kind == "text" else path.mkdir()
    started = time.monotonic()
    with pytest.raises(
        UserError, match=r"mlflow\.db cannot be opened as a database \(.*\): check its address, or give"
    ):
        check_database(f"sqlite:///{path}")
    assert time.monotonic() - started < 5  # MLflow itself tries for more than a minute


def test_a_driver_that_is_not_installed_is_named():
    with pytest.raises(UserError, match=r"needs the Python module MySQLdb, which is not installed: install its driver"):
        check_database("mysql://host/db")


@pytest.mark.parametrize("uri", ["sqlite://mlflow.db", "sqlite:mlflow.db", "postgresql+none://host/db"])
def test_a_wrong_address_is_named(uri):
    with pytest.raises(UserError, match=rf"{uri.replace('+', '.')} cannot be opened as a database") as refused:
        check_database(uri)
    assert isinstance(refused.value.__cause__, NoSuchModuleError) == ("none" in uri)


def test_a_locked_file_is_left_to_the_calls_that_wait_for_it(tracking_uri):
    with sqlite3.connect(tracking_uri.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        check_database(tracking_uri)
        other.execute("COMMIT")
