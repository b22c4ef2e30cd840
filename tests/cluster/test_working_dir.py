"""What `ray job submit --working-dir .` sends: little, all of the code, neither data nor secrets."""

import shutil
import zipfile

import pytest
from ray._private.runtime_env.packaging import create_package

from tests.faults.training_faults import REPO

MAX_BYTES = 3e6  # the code has 2e6, and anything else would soon show


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """The package of a folder in which somebody works: with runs, a database, keys."""
    folder = tmp_path_factory.mktemp("package")
    here = folder / "here"
    shutil.copytree(REPO, here, ignore=shutil.ignore_patterns(".git", "runs", "*cache*"))
    for path in (
        "runs/first/model.safetensors",
        "mlflow.db",
        "mlruns/0/meta.yaml",
        "object-store.env",
        ".env",
        ".venv/x",
    ):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text("s" * 100_000)
    create_package(str(here), folder / "package.zip", include_gitignore=True, excludes=[".git", ".venv", "__pycache__"])
    return folder / "package.zip"


def test_it_is_small(sent):
    assert sent.stat().st_size < MAX_BYTES


def test_it_holds_the_code_and_neither_data_nor_secrets(sent):
    names = zipfile.ZipFile(sent).namelist()
    code = {
        str(path.relative_to(REPO)) for top in ("jobs", "pipelines", "t3d_core") for path in (REPO / top).rglob("*.py")
    }
    assert code <= set(names)
    assert not [name for name in names if name.startswith(("runs", "mlruns", "mlflow.db", ".venv", ".git/"))]
    assert not [name for name in names if name.endswith((".env", "auth_token", ".safetensors", ".mp4", ".avi"))]
