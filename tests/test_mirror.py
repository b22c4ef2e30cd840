"""Tests mirror the rooms: each module has its test file, or a line in tests/README.md that says where it is tested."""

import re
from pathlib import Path

REPO = Path(__file__).parents[1]
PACKAGES = ("t3d_core", "pipelines", "jobs")
README = (Path(__file__).with_name("README.md")).read_text()


def modules() -> set[str]:
    files = (path for package in PACKAGES for path in (REPO / package).rglob("*.py"))
    return {str(path.relative_to(REPO)) for path in files if path.name != "__init__.py"}


def present_test_files() -> set[str]:
    files = (path for package in PACKAGES for path in (REPO / "tests" / package).rglob("test_*.py"))
    return {str(path.relative_to(REPO)) for path in files}


def mirror_of(module: str) -> str:
    folder, _, name = module.rpartition("/")
    return f"tests/{folder}/test_{name}"


def rows_below(heading: str) -> list[list[list[str]]]:
    """The names in backquotes of every cell of the table below a heading."""
    [section] = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", README, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:-1]] for line in lines]


def elsewhere() -> dict[str, list[str]]:
    """The test files of each module that has none of its own."""
    return {module: tests for listed, tests, _ in rows_below("Modules tested elsewhere") for module in listed}


def without_module() -> list[str]:
    return [name for names, _ in rows_below("Test files without a module") for name in names]


def test_every_module_has_its_test_file_or_a_line_that_says_where_it_is_tested() -> None:
    missing = {module for module in modules() if not (REPO / mirror_of(module)).is_file()}
    assert missing - elsewhere().keys() == set(), "give each its test file, or a line in tests/README.md"


def test_no_line_is_of_a_module_that_is_gone_or_has_its_test_file() -> None:
    listed = elsewhere().keys()
    assert listed <= modules()
    assert {module for module in listed if (REPO / mirror_of(module)).is_file()} == set()


def test_every_line_names_test_files_that_there_are() -> None:
    assert {name for names in elsewhere().values() for name in names if not (REPO / name).is_file()} == set()
    assert all(elsewhere().values())


def test_every_test_file_has_its_module_or_a_line_that_says_what_it_tests() -> None:
    mirrors = {mirror_of(module) for module in modules()}
    assert present_test_files() - mirrors == set(without_module())


def test_the_map_names_each_once() -> None:
    names = [module for listed, *_ in rows_below("Modules tested elsewhere") for module in listed]
    assert sorted(names) == sorted(set(names))
    assert sorted(without_module()) == sorted(set(without_module()))
