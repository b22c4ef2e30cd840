"""Whether the database of a store can be opened: asked once, within seconds, because MLflow tries for minutes."""

import functools
import shlex
import sqlite3
from pathlib import Path

import mlflow
from alembic.script import ScriptDirectory
from mlflow.store import db_migrations
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from t3d_core.errors import UserError

ANOTHER_STORE = "give another store with --tracking.uri or MLFLOW_TRACKING_URI, such as sqlite:///mlflow.db"
_SECONDS_TO_CONNECT = 10
_VERSION_TABLE = "alembic_version"


def is_database(tracking_uri: str) -> bool:
    """Whether the address is that of a database, which this process opens itself."""
    return tracking_uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


@functools.cache
def check_database(tracking_uri: str) -> None:
    """Open the database and look at its tables; a locked file is left for later calls, which wait for it.

    Raises:
        UserError: its address is wrong, its driver is not installed, it does not answer, or another program or another
            version of MLflow made it.
    """
    try:
        dialect = make_url(tracking_uri).get_backend_name()
        limits = {"connect_timeout": _SECONDS_TO_CONNECT} if dialect in ("postgresql", "mysql") else {}
        _check_tables(create_engine(tracking_uri, poolclass=NullPool, connect_args=limits), tracking_uri)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the tracking store {tracking_uri} needs the Python module {error.name}, which is not installed: install "
            f"its driver, or {ANOTHER_STORE}"
        ) from error
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        if isinstance(reason, sqlite3.OperationalError) and "locked" in str(reason):
            return
        raise UserError(
            f"the tracking store {tracking_uri} cannot be opened as a database ({' '.join(str(reason).split())}): "
            f"check its address, or {ANOTHER_STORE}"
        ) from error


def _check_tables(engine: Engine, tracking_uri: str) -> None:
    """Refuse tables of another program or of another version; MLflow makes its own where there are none."""
    tables = inspect(engine).get_table_names()
    if not tables:
        return
    if _VERSION_TABLE not in tables:
        raise UserError(
            f"the tracking store {tracking_uri} is a database of another program (tables: {', '.join(tables[:5])}): "
            f"leave it to that program, or {ANOTHER_STORE}"
        )
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()
    versions = ScriptDirectory(str(Path(db_migrations.__file__).parent))
    if found in versions.get_heads():
        return
    is_older = found in {each.revision for each in versions.walk_revisions()}
    cure = (
        f"copy it, then run `mlflow db upgrade {shlex.quote(tracking_uri)}`"
        if is_older
        else "install that version of MLflow"
    )
    raise UserError(
        f"the tracking store {tracking_uri} was made by {'an older' if is_older else 'a newer'} version of MLflow than "
        f"{mlflow.__version__} (schema {found}): {cure}, or {ANOTHER_STORE}"
    )
