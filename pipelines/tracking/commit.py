"""Which commit this code is."""

import os
import subprocess
from pathlib import Path


def git_commit(folder: Path) -> str | None:
    """The commit of the code in `folder`, with `-dirty` when tracked files were changed; None when it is unknown.

    Where there is no `.git`, it comes from T3D_GIT_COMMIT (a submitted folder) or `.commit` (an image, see
    cluster/Dockerfile).
    """
    if commit := os.environ.get("T3D_GIT_COMMIT"):
        return commit
    if (of_image := folder / ".commit").is_file():
        return of_image.read_text().strip() or None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit_tag() -> dict[str, str]:
    """The tag that names the commit of this code, when it is known."""
    commit = git_commit(Path(__file__).parents[2])
    return {} if commit is None else {"mlflow.source.git.commit": commit}
