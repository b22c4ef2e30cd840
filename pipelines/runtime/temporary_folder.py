"""The temporary folders of this process become usable for a Ray that it starts: writable, and with short paths.

Ray keeps its sockets, logs and spilled objects in RAY_TMPDIR, or else in TMPDIR or /tmp. Batch systems set TMPDIR to a
folder of the job, whose path may be too long for a socket. The files stay there, where the batch system removes them.
This process and its children use a short link to it, which is removed when the process ends.
"""

import atexit
import contextlib
import logging
import os
import tempfile
from pathlib import Path

import ray

from t3d_core.errors import UserError

_LOG = logging.getLogger(__name__)
_OF_RAY, _OF_ALL = "RAY_TMPDIR", "TMPDIR"  # the second also counts for Ray's dashboard, whatever the first is
_MAX_SOCKET_BYTES = 103  # of a path, on macOS; Linux allows 107
_LONGEST_SOCKET = "ray/session_2026-11-30_01-42-08_828637_4194304/sockets/plasma_store"
_SHORT_PLACE = "/tmp"


def prepare_temporary_folders() -> None:
    """Set TMPDIR, and RAY_TMPDIR where it is given, to folders that Ray can use.

    Raises:
        UserError: this user may not write there.
    """
    given = os.environ.get(_OF_RAY)
    of_all = _writable_folder()
    of_ray = Path(given).expanduser().absolute() if given else of_all
    _check_writable(of_ray / "ray")
    tempfile.tempdir = os.environ[_OF_ALL] = str(_short(of_all))
    if given:
        os.environ[_OF_RAY] = str(_short(of_ray))


def _writable_folder() -> Path:
    """TMPDIR if files can be written there, or else what Python finds."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise UserError(f"{error.strerror}: set {_OF_ALL} to a folder on a disk of this machine") from error


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return
        reason = f"it belongs to user {folder.stat().st_uid}"
    except OSError as error:
        reason = f"{error.strerror}"
    raise UserError(
        f"Ray cannot write to {folder} ({reason}): set {_OF_RAY} to a folder of your own on a disk of this machine"
    )


def _short(folder: Path) -> Path:
    """The folder, or a link to it where its path is too long for Ray's sockets."""
    if len(os.fsencode(folder / _LONGEST_SOCKET)) <= _MAX_SOCKET_BYTES:
        return folder
    try:
        link = Path(tempfile.mkdtemp(prefix="t3d-", dir=_SHORT_PLACE)) / "tmp"
    except OSError as error:
        raise UserError(
            f"the path of the temporary folder {folder} is too long for Ray's sockets, and {_SHORT_PLACE} cannot hold "
            f"a link to it ({error.strerror}): set {_OF_ALL} and {_OF_RAY} to folders with short paths"
        ) from error
    link.symlink_to(folder, target_is_directory=True)
    atexit.register(_remove, link)
    _LOG.warning("The path of %s is too long for Ray's sockets: Ray reaches it by %s", folder, link)
    return link


def _remove(link: Path) -> None:
    ray.shutdown()  # its processes use the link until they end
    with contextlib.suppress(OSError):  # a cleaner of temporary files was faster
        link.unlink()
        link.parent.rmdir()
