"""A folder that one process at a time writes to: who holds it, what ends that, and file systems without locks."""

import errno
import os
import subprocess
import sys

import pytest

from pipelines.runtime.files import exclusive_folder

HOLD = """
import sys
from pathlib import Path
from pipelines.runtime.files import exclusive_folder

with exclusive_folder(Path(sys.argv[1]), when_taken=print):
    print("held", flush=True)
    sys.stdin.read()
"""


def refuse(holder):
    raise ValueError(f"held by {holder}")


def test_a_folder_is_refused_with_its_holder_until_that_process_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=f"held by process {other.pid} on "),
            exclusive_folder(tmp_path, when_taken=refuse),
        ):
            pass
        other.kill()
    with exclusive_folder(tmp_path, when_taken=refuse):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_where_the_file_system_has_no_locks_a_warning_takes_their_place(tmp_path, monkeypatch, caplog):
    def without_locks(descriptor, *, blocking=True):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("pipelines.runtime.files.lock_descriptor", without_locks)
    with exclusive_folder(tmp_path, when_taken=refuse):
        pass
    assert f"{tmp_path} cannot be locked ([Errno {errno.ENOLCK}] No locks available)" in caplog.text
