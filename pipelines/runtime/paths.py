"""Where relative paths lead, and names for new runs.

`ray job submit` runs a job in the folder of `ray start`, on one node's disk, or with `--working-dir .` in a throw-away
copy of the submitted folder: files written there are lost. T3D_HOME names the storage that all nodes share.
"""

import datetime
import functools
import logging
import os
from pathlib import Path

from pipelines.settings.section import expand_home
from t3d_core.errors import UserError

JOB_HOME = "t3d-runs"
HOME_VARIABLE = "T3D_HOME"
_LOG = logging.getLogger(__name__)


def is_throw_away_copy(folder: Path) -> bool:
    """Whether `folder` lies in the copy of a working directory that Ray unpacked for a job."""
    return "working_dir_files" in folder.parts


def new_name(stage: str) -> str:
    """A new name for a run: the stage and the time."""
    return f"{stage}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def base_folder() -> Path:
    """The folder that relative paths of runs, shards and tracking start from: T3D_HOME, or else the working folder.

    In a job's throw-away copy without T3D_HOME it is `$HOME/t3d-runs`, which is logged.

    Raises:
        UserError: T3D_HOME is not a folder.
    """
    if home := os.environ.get(HOME_VARIABLE):
        home = expand_home(home)
        if not Path(home).is_dir():  # creating it would hide that nothing is mounted there
            raise UserError(f"{HOME_VARIABLE} {home} is not a folder: mount the shared storage there, or unset it")
        return Path(home).absolute()
    here = Path.cwd()
    return _leave_copy(here) if is_throw_away_copy(here) else here


@functools.cache  # logged once, however often it is called
def _leave_copy(here: Path) -> Path:
    base = Path.home() / JOB_HOME
    _LOG.warning("The folder of this job is a throw-away copy: relative paths start from %s", base)
    return base


def input_path(path: Path) -> Path:
    """Where a job finds its input: in its folder, or else in the folder that runs write to."""
    here = Path.cwd() / path
    return here if os.path.exists(here) else base_folder() / path


def output_path(path: Path) -> Path:
    """Where a job writes a folder: `path`, from `base_folder` on.

    Raises:
        UserError: a file is in its way, or this user may not write there.
    """
    whole = base_folder() / path
    try:
        there = next(each for each in (whole, *whole.parents) if each.exists())
    except OSError as error:  # a folder on the way may not be searched
        raise UserError(f"{whole} cannot be written: {error.strerror}; give another folder") from error
    if not there.is_dir():
        raise UserError(f"{whole} cannot be a folder, because {there} is a file: give another folder")
    if not os.access(there, os.W_OK):
        raise UserError(f"{whole} cannot be written: this user may not write to {there}; give another folder")
    return whole
