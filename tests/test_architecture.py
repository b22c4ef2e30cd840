"""The tree of the design: what may lie where, and what may import what."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import REPO, committed

TOP_LEVEL = {"README.md", "LICENSE", "pyproject.toml", "t3d_core", "pipelines", "jobs", "cluster", "tests"}
PACKAGES = ("t3d_core", "pipelines", "jobs")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


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


def test_processes_that_decode_do_not_load_torch() -> None:
    """It takes seconds and half a GB in each of them."""
    modules = ["pipelines.clips.stream", "pipelines.clips.views", "pipelines.transfer.pair_loader"]
    modules += ["pipelines.predict.parts", "pipelines.prepare.shard_task", "pipelines.baseline.frames"]
    code = f"import sys; import {', '.join(modules)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_users_errors_are_of_their_own_type() -> None:
    """A plain ValueError would be printed with its traceback."""
    assert [path for path in python_files(*PACKAGES) if "raise ValueError" in path.read_text()] == []


def test_a_config_is_changed_in_one_way_which_checks_it_again() -> None:
    assert [path for path in python_files(*PACKAGES) if "model_copy" in path.read_text()] == []


def test_no_job_is_named_like_a_module_that_is_imported() -> None:
    # A job runs with jobs/ first on sys.path: jobs/ray.py would be what `import ray` finds.
    imported = {name for path in python_files("t3d_core", "pipelines") for name in imports_of(path)}
    jobs = {path.stem for path in python_files("jobs")}
    assert jobs.isdisjoint(imported | sys.stdlib_module_names)


def test_every_module_says_what_it_is() -> None:
    assert [path for path in python_files(*PACKAGES) if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_sources_are_ascii() -> None:
    assert [path for path in python_files(*PACKAGES, "tests") if not path.read_bytes().isascii()] == []
