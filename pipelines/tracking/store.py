"""The MLflow store of an address: opened quietly, tried again while it is away or locked.

A server must answer the first call of a process within seconds. Later calls are tried again for minutes, and so are
calls to a sqlite file that another process has locked.
"""

import functools
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import mlflow
from filelock import lock_descriptor
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Experiment, LifecycleStage
from mlflow.environment_variables import MLFLOW_ALLOW_FILE_STORE
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError
from urllib3.exceptions import HTTPError

from pipelines.settings.section import expand_home
from pipelines.tracking.database import ANOTHER_STORE, check_database, is_database
from t3d_core.errors import UserError

SQLITE = "sqlite:///"
SERVER = ("http://", "https://")
_SECONDS_TO_ANSWER = 10.0  # for the first call of a process to a server
_SECONDS_OF_PATIENCE = 120.0  # with a locked sqlite file; with a server MLflow has 240
_SECONDS_BETWEEN_TRIES = 1.0
CONNECT_AND_READ_SECONDS = (4.0, 60.0)  # of one attempt
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class StoreAwayError(UserError):
    """The store cannot be reached or does not answer now; the same call may succeed later."""


def resolve_tracking_uri(uri: str | None, *, base: Path) -> str:
    """Determine which store a run writes to, so that every worker finds the same one from its own folder.

    Args:
        uri: the configured address; by default MLFLOW_TRACKING_URI, or else `sqlite:///mlflow.db`.
        base: the folder that relative paths start from.

    Returns:
        The address, with an absolute path when it is a sqlite file or a folder; a server's address as it came.

    Raises:
        UserError: the address holds a password, or a `?` or `%` of a name as it is.
    """
    uri = expand_home(uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db")
    if uri.startswith(SQLITE):
        _check_quoted(uri, base=base)
        return f"{SQLITE}{Path(_quoted(base.absolute())) / uri.removeprefix(SQLITE)}"
    if uri.startswith("file:///"):
        return uri
    if ":" in uri and not uri.startswith("file:"):
        _check_no_password(uri)
        return uri
    return (base.absolute() / uri.removeprefix("file:")).as_uri()


def _quoted(path: Path) -> str:
    """The path inside an address of SQLAlchemy, where `%` begins a code and `?` the options."""
    return str(path).replace("%", "%25").replace("?", "%3F")


def _sqlite_file(tracking_uri: str) -> Path:
    return Path(unquote(tracking_uri.removeprefix(SQLITE).partition("?")[0]))


def _check_quoted(uri: str, *, base: Path) -> None:
    """Refuse the address of a sqlite file that would silently be another file than the one that is written there."""
    path, mark, options = uri.removeprefix(SQLITE).partition("?")
    written, meant = base / path, base / unquote(path)
    is_name = bool(mark) and ("=" not in options or "/" in options)
    if is_name or (written.parent.is_dir() and not meant.parent.is_dir()):
        raise UserError(f"tracking.uri {uri} means the file {meant}: write a % of its name as %25, and a ? as %3F")


def _check_no_password(uri: str) -> None:
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    # A colon before an @ ends the user's name, except the colon of a port; a password may hold slashes.
    has_user = re.match(r"[^/:@]*:(?!\d+/)", place.rpartition("@")[0])
    if has_user or re.search(r"(password|passwd|pwd)=", unquote(query), re.IGNORECASE):
        raise UserError(
            f"tracking.uri {scheme}://... contains a password, which would be logged: give it in environment variables "
            "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD for PostgreSQL)"
        )


def patient(call: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Repeat a call that finds the sqlite file locked; calls to a server are repeated by MLflow, for four minutes."""

    @functools.wraps(call)
    def tried(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        deadline = time.monotonic() + _SECONDS_OF_PATIENCE
        while True:
            try:
                return call(*args, **kwargs)
            except (MlflowException, SQLAlchemyError) as error:
                is_locked = "database is locked" in str(error)
                if not is_locked and not any(isinstance(cause, HTTPError) for cause in causes_of(error)):
                    raise
                if not is_locked or time.monotonic() > deadline:
                    raise StoreAwayError(
                        f"the tracking store cannot be reached ({error}): start the job again once it can"
                    ) from error
            time.sleep(_SECONDS_BETWEEN_TRIES)

    return tried


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@functools.cache  # calls wait for a server that has answered once
def check_answers(tracking_uri: str) -> None:
    """Refuse a wrong address within seconds, because MLflow's own retries take four minutes.

    Raises:
        UserError: no server answers there, or it refuses calls by that host name.
    """
    deadline = time.monotonic() + _SECONDS_TO_ANSWER
    while tracking_uri.startswith(SERVER):
        try:
            answer = http_request(
                get_default_host_creds(tracking_uri),
                "/api/2.0/mlflow/experiments/search",
                "GET",
                max_retries=0,
                timeout=CONNECT_AND_READ_SECONDS[0],
                params={"max_results": 1},
            )
            if answer.status_code == 403 and "Host header" in answer.text:
                host = urlsplit(tracking_uri).netloc
                raise UserError(
                    f"the MLflow server at {tracking_uri} refuses the host name {host}: add it to its --allowed-hosts "
                    "(MLFLOW_SERVER_ALLOWED_HOSTS), or use a name that is listed there"
                )
            return
        except MlflowException as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no MLflow server answers at {tracking_uri} ({reason_of(error)}): start it, or {ANOTHER_STORE}"
                ) from error
        time.sleep(_SECONDS_BETWEEN_TRIES)


def check_is_there(tracking_uri: str) -> None:
    """Refuse a sqlite file that is not there, where runs are only read: opening it would make an empty store.

    Raises:
        UserError: there is no such file; the message has the cure.
    """
    if tracking_uri.startswith(SQLITE) and not _sqlite_file(tracking_uri).exists():
        raise UserError(
            f"the tracking store {tracking_uri} is not there, so it has no runs: give the store of the runs with "
            "--tracking.uri or MLFLOW_TRACKING_URI"
        )


def reason_of(error: Exception) -> str:
    """The first cause of a network error; the text of any other error, without the statement of a database."""
    *_, first = causes_of(error)
    return str(first if isinstance(first, OSError) else error).partition("\n[SQL:")[0]


@patient
def open_client(tracking_uri: str) -> MlflowClient:
    """Open the store and its model registry without output; MLflow keeps the connections between calls.

    Raises:
        UserError: there is no such store, or it cannot be opened.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").addFilter(_has_no_traceback)
    if tracking_uri.startswith("file:") and not MLFLOW_ALLOW_FILE_STORE.get():
        raise UserError(
            f"the tracking store {tracking_uri} is a folder, in which MLflow {mlflow.__version__} keeps no runs unless "
            f"{MLFLOW_ALLOW_FILE_STORE.name}=true is set: set it, or {ANOTHER_STORE} "
            "(`mlflow migrate-filestore` copies older runs there)"
        )
    with _open_lock(tracking_uri):
        if is_database(tracking_uri):
            check_database(tracking_uri)
        try:
            return MlflowClient(tracking_uri, registry_uri=tracking_uri)
        except UnsupportedModelRegistryStoreURIException as error:
            raise UserError(
                f"the tracking store {tracking_uri} is of no kind that MLflow knows: write a server as "
                f"http://HOST:5000, or {ANOTHER_STORE}"
            ) from error


def _has_no_traceback(record: logging.LogRecord) -> bool:
    """Whether the record has no traceback: MLflow prints the traceback of an error that it also raises."""
    return record.exc_info is None


@contextmanager
def _open_lock(tracking_uri: str) -> Iterator[None]:
    """Let one process at a time open a sqlite store: MLflow fails when two processes create its tables together."""
    if not tracking_uri.startswith(SQLITE):
        yield
        return
    lock_path = Path(f"{_sqlite_file(tracking_uri)}.lock")
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        file = lock_path.open("w")  # filelock's own FileLock would wait for ever where the file cannot be made
    except OSError as error:
        raise UserError(
            f"the tracking store {tracking_uri} cannot be opened, because {lock_path} cannot be written "
            f"({error.strerror}): make its folder one that this user may write to, or {ANOTHER_STORE}"
        ) from error
    with file:
        lock_descriptor(file.fileno())
        yield


def artifact_location(tracking_uri: str) -> str | None:
    """A folder next to a sqlite store (MLflow would use the working folder); None for a server, which has its own."""
    if not tracking_uri.startswith(SQLITE):
        return None
    return (_sqlite_file(tracking_uri).parent / "mlruns").as_uri()


def check_not_deleted(experiment: Experiment, *, tracking_uri: str) -> None:
    """Refuse an experiment that was deleted: MLflow keeps it and its name, and accepts no runs in it.

    Raises:
        UserError: it was deleted; the message has the command that restores it.
    """
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        restore = f"mlflow experiments restore -x {experiment.experiment_id}"
        raise UserError(
            f"experiment {experiment.name!r} is deleted in the tracking store {tracking_uri}: restore it with "
            f"`{at_store(tracking_uri, restore)}`, or give another one with --tracking.experiment (in compare "
            "--experiment)"
        )


def at_store(tracking_uri: str, command: str) -> str:
    """A command of MLflow as one types it for this store."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(tracking_uri)} {command}"
