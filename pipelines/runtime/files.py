"""Files that appear whole or not at all, and folders that one process at a time writes to."""

import logging
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

_LOG = logging.getLogger(__name__)


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


@contextmanager
def exclusive_folder(path: Path, *, when_taken: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder for the only process that writes to it; the lock ends with the process, however it ends.

    Args:
        path: the folder; created if it is absent.
        when_taken: called with the holder (`process 12 on host`) if another process holds the folder. It raises an
            error, or returns in order to wait for that process.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("a+") as file:
        try:
            is_held = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:  # some cluster file systems have no locks
            _LOG.warning("%s cannot be locked (%s): do not start a second job there", path, error)
            is_held = True
        if not is_held:
            file.seek(0)
            when_taken(file.read())
            lock_descriptor(file.fileno())
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def copy_whole(source: Path, target: Path) -> Path:
    """Copy a file so that the target is complete or absent; return the target."""
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
    return target
