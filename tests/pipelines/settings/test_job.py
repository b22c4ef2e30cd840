import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.settings.job import run_job
from t3d_core.errors import UserError
from tests.pipelines.settings.example import (
    Train,
)


def run_and_fail(error: BaseException, tmp_path: Path) -> int | str | None:
    (tmp_path / "q.yaml").write_text("{}")

    def run(config: Train) -> str:
        raise error

    with pytest.raises(SystemExit) as exit_info:
        run_job(Train, run, argv=[], quickstart=tmp_path / "q.yaml")
    return exit_info.value.code


def test_run_job_prints_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "q.yaml").write_text("name: quick")
    run_job(Train, lambda config: f"done {config.name}", argv=[], quickstart=tmp_path / "q.yaml")
    assert capsys.readouterr().out == "done quick\n"


class ShardsGoneError(UserError):
    """As the stages derive their own from it."""


@pytest.mark.parametrize("error_class", [UserError, ShardsGoneError])
def test_an_error_of_the_user_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error_class: type[UserError]
):
    assert run_and_fail(error_class("no worker\ncame back"), tmp_path) == 1
    assert capsys.readouterr().err == "error: no worker came back\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TypeError("odd"), "error: TypeError: odd"),
        (ValueError("operands could not be broadcast"), "error: ValueError: operands could not be broadcast"),
        (FileNotFoundError(2, "No such file", "x"), "error: FileNotFoundError: [Errno 2] No such file: 'x'"),
    ],
)
def test_every_other_error_keeps_its_traceback_above_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, line: str
):
    assert run_and_fail(error, tmp_path) == 1
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.endswith(f"\n{line}\n")


def test_an_error_that_a_remote_task_carries_is_reported_by_its_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from ray.exceptions import RayTaskError

    remote = RayTaskError("f", "long\ntraceback", UserError("a broken shard")).as_instanceof_cause()
    assert run_and_fail(remote, tmp_path) == 1
    assert capsys.readouterr().err == "error: a broken shard\n"


def test_a_job_draws_into_files_whatever_a_notebook_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    (tmp_path / "q.yaml").write_text("{}")
    run_job(Train, lambda config: matplotlib_backend(), argv=[], quickstart=tmp_path / "q.yaml")
    assert matplotlib_backend() == "agg"


def matplotlib_backend() -> str:
    script = "import matplotlib; print(matplotlib.get_backend())"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_a_user_without_a_home_folder_is_refused_before_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """As in a container that runs with a number of which the image knows nothing."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    assert run_and_fail(TypeError("not reached"), tmp_path) == 1
    line = f"error: user {os.getuid()} of this machine has no home folder: set HOME to a folder, such as /tmp\n"
    assert capsys.readouterr().err == line


def test_an_error_of_the_machine_is_one_line_with_its_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_and_fail(OSError(28, "No space left on device", "/runs/first"), tmp_path) == 1
    line = "error: /runs/first: No space left on device: make room there, then start the job again\n"
    assert capsys.readouterr().err == line


def test_an_interrupt_is_one_line_and_status_130(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_and_fail(KeyboardInterrupt(), tmp_path) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


JOB = """
from pathlib import Path
from pipelines.settings.job import run_job
from pipelines.settings.section import Section

class Job(Section):
    '''Adds.'''
    path: int = 1
    home: str = "nowhere"

run_job(Job, lambda config: f"{1 / config.path} {config.home}", quickstart=Path(__file__).with_name("q.yaml"))
"""


@pytest.mark.parametrize(
    ("line", "status", "out", "last_line"),
    [
        ("", 0, "0.5 nowhere\n", None),
        ("--path x --hom y", 2, "", "error: wrong settings (recipe "),
        ("--path 0", 1, "", "error: ZeroDivisionError: "),
        ("--print-config", 0, "path: 2\nhome: nowhere\n", None),
    ],
)
def test_a_job_as_a_process_ends_with_the_status_of_the_contract(
    tmp_path: Path, line: str, status: int, out: str, last_line: str | None
):
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "q.yaml").write_text("path: 2")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "path": "7"}
    done = subprocess.run(
        [sys.executable, "job.py", *line.split()], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (status, out)
    assert last_line is None or done.stderr.splitlines()[-1].startswith(last_line)
