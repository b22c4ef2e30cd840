"""Files that appear whole or not at all, and folders that one process at a time writes to."""

import contextlib
import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t3d_core.errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, unique over all nodes, that becomes `path` if the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Hold a run's folder for the only job that works there; the lock ends with the process, however it ends.

    Raises:
        UserError: another one does.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"run {path.name!r} in {path.parent} is being trained by {file.read()}: wait for it, or give another "
                "--name"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def copy_whole(source: Path, target: Path) -> Path:
    """Copy a file so that the target is complete or absent; give the target."""
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
    return target
