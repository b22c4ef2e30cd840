"""What a user can do about an error of the operating system that any job may meet: a full disk, a missing permission.

Stages report such errors themselves where they know more, such as how a run resumes.
"""

import errno

_ANOTHER_FOLDER = "give this user access to it, or name another folder (--storage, --output, --tracking.uri, T3D_HOME)"
_ROOM = "make room there, then start the job again"
_CURES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _ANOTHER_FOLDER,
    errno.EACCES: _ANOTHER_FOLDER,
    errno.EPERM: _ANOTHER_FOLDER,
    errno.ENOTDIR: "move away the file that is in the place of a folder",
    errno.EMFILE: "let a process open more files, with `ulimit -n 8192`",
    errno.ENFILE: "let this machine open more files (fs.file-max)",
    errno.ENOMEM: "free memory, or start fewer workers",
    errno.EAGAIN: "let this user start more processes and threads (`ulimit -u`), or start fewer workers",
}


def describe_machine_error(error: BaseException) -> str | None:
    """One line with the file at fault, the reason and the cure; None for an error of another kind."""
    if not isinstance(error, OSError) or error.errno not in _CURES or error.strerror is None:
        return None
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}: {_CURES[error.errno]}"
