"""The tree of the design: what may lie where, what may import what, and commands in README that work."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
TOP_LEVEL = {"README.md", "pyproject.toml", "t3d_core", "pipelines", "jobs", "cluster", "tests"}
PACKAGES = ("t3d_core", "pipelines", "jobs")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def committed() -> list[Path]:
    """Files that git holds or would take up, as paths from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=REPO, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("no git checkout here")
    return [Path(line) for line in listed.stdout.splitlines()]


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPO / folder).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Top-level names of everything that the module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield (node.module or "").partition(".")[0]


def test_the_top_level_holds_only_the_names_of_the_design_and_dotfiles() -> None:
    names = {path.parts[0] for path in committed()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_no_module_is_a_drawer_for_everything() -> None:
    assert [path for path in python_files(*PACKAGES, "tests") if path.stem in FORBIDDEN_NAMES] == []


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("t3d_core", {"ray", "mlflow", "pipelines", "jobs", "tests"}),
        ("pipelines", {"jobs", "tests"}),
        ("jobs", {"t3d_core", "ray", "mlflow", "torch", "tests"}),
    ],
)
def test_imports_go_one_way(package: str, forbidden: set[str]) -> None:
    files = python_files(package)
    assert files
    assert {str(path): wrong for path in files if (wrong := forbidden & set(imports_of(path)))} == {}


def test_only_tracking_imports_mlflow() -> None:
    importing = {path.parent.name for path in python_files("pipelines") if "mlflow" in imports_of(path)}
    assert importing == {"tracking"}


@pytest.mark.heavy
def test_the_method_loads_neither_ray_nor_mlflow_in_a_fresh_process() -> None:
    modules = [
        ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
        for path in python_files("t3d_core")
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; "
        "print({'ray', 'mlflow'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_job_is_named_like_a_module_that_is_imported() -> None:
    # A job runs with jobs/ first on sys.path: jobs/ray.py would be what `import ray` finds.
    imported = {name for path in python_files("t3d_core", "pipelines") for name in imports_of(path)}
    jobs = {path.stem for path in python_files("jobs")}
    assert jobs.isdisjoint(imported | sys.stdlib_module_names)


def test_every_module_says_what_it_is() -> None:
    assert [path for path in python_files(*PACKAGES) if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_sources_are_ascii() -> None:
    assert [path for path in python_files(*PACKAGES, "tests") if not path.read_bytes().isascii()] == []


# ---- README


def commands_in(markdown: str) -> list[str]:
    """The lines of its fenced blocks, continued lines joined, one command each (a && b are two)."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in re.split(r"&&|;", line.strip().removeprefix("$ "))]


def job_arguments(command: str) -> list[str] | None:
    """`jobs/NAME.py` and its arguments, placeholders filled in; None where no job is started."""
    # <a number> stands for a value: every setting of the jobs that is a number takes 1
    words = shlex.split(re.sub(r"<[^<>]*>", "1", command), comments=True)
    starts = [place for place, word in enumerate(words) if re.fullmatch(r"jobs/\w+\.py", word)]
    if not starts or not re.fullmatch(r"python[\d.]*", Path(words[starts[0] - 1]).name):
        return None
    arguments = words[starts[0] :]
    ends = [place for place, word in enumerate(arguments) if word in ("|", "&", ">", "2>&1") or word.startswith(">")]
    return arguments[: ends[0]] if ends else arguments


def test_commands_are_found_in_fenced_blocks() -> None:
    markdown = (
        "```\npip install -e . && python jobs/transfer.py\n"
        "$ ray job submit -- python jobs/train.py \\\n  --epochs <EPOCHS>  # long\n```\n"
        "`python jobs/not_fenced.py`\n"
    )
    found = [arguments for command in commands_in(markdown) if (arguments := job_arguments(command))]
    assert found == [["jobs/transfer.py"], ["jobs/train.py", "--epochs", "1"]]


def readme_jobs() -> list[list[str]]:
    commands = [each for path in ("README.md", "cluster/README.md") for each in commands_in((REPO / path).read_text())]
    return [arguments for command in commands if (arguments := job_arguments(command))]


def test_readme_shows_how_to_start_every_job() -> None:
    assert {arguments[0] for arguments in readme_jobs()} == {
        f"jobs/{path.name}" for path in (REPO / "jobs").glob("*.py")
    }


@pytest.mark.parametrize("arguments", readme_jobs(), ids=" ".join)
def test_every_job_command_of_readme_parses(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(sys, "argv", [*arguments, "--print-config"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(REPO / arguments[0]), run_name="__main__")
    assert end.value.code == 0, capsys.readouterr().err
