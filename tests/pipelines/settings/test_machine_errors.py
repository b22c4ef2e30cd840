"""Errors of the operating system: which are one line with a cure, and which keep their traceback."""

import errno
import os
from pathlib import Path

import pytest

from pipelines.settings.machine_errors import describe_machine_error


def test_a_full_disk_is_described_by_its_file_and_what_to_do():
    with pytest.raises(OSError, match="No space") as full, Path("/dev/full").open("w") as file:
        file.write("x")
    assert describe_machine_error(full.value) == "No space left on device: make room there, then start the job again"


def test_a_file_in_the_place_of_a_folder_is_described_by_its_path(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(NotADirectoryError) as wrong:
        os.mkdir(tmp_path / "runs" / "first")
    place = tmp_path / "runs" / "first"
    cure = "move away the file that is in the place of a folder"
    assert describe_machine_error(wrong.value) == f"{place}: Not a directory: {cure}"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EMFILE, errno.EAGAIN])
def test_the_others_that_a_user_can_resolve_have_their_cure(code):
    line = describe_machine_error(OSError(code, os.strerror(code), "/runs/first"))
    assert line is not None
    assert line.startswith(f"/runs/first: {os.strerror(code)}: ")


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "absent", "x"), ValueError("wrong"), OSError("no code")]
)
def test_what_may_be_a_fault_of_the_code_is_not_described(error):
    assert describe_machine_error(error) is None
