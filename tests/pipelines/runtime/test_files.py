"""Files are whole or absent; a folder that one process at a time writes to: who holds it, what ends that."""

import errno
import os
import subprocess
import sys

import pytest

from pipelines.runtime.files import exclusive_folder, whole_file

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


def test_a_file_that_cannot_be_finished_leaves_nothing_and_keeps_the_former_one(tmp_path):
    def write_half():
        with whole_file(tmp_path / "file") as partial:
            partial.write_text("half")
            raise RuntimeError("disk")

    (tmp_path / "file").write_text("former")
    with pytest.raises(RuntimeError, match="disk"):
        write_half()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["former"]
