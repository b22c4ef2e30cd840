"""The files of this checkout, for tests that look at the repository itself."""

import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


def committed() -> list[Path]:
    """Files that git holds or would take up, as paths from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=REPO, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("no git checkout here")
    return [path for line in listed.stdout.splitlines() if (REPO / (path := Path(line))).exists()]
