"""Checkpoints of one run: folders that are whole or absent; a run resumes from the newest whole one.

RUN/checkpoint_00000500/manifest.json   size and SHA-256 of each other file; a folder that differs is damaged
RUN/checkpoint_00001000.partial/        being written, or left by a kill: never read, swept at the next start
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MANIFEST = "manifest.json"
_PATTERN = "checkpoint_????????"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointFolder:
    """Where one run keeps its checkpoints.

    Attributes:
        root: the run's folder, which all nodes see.
        num_to_keep: whole checkpoints to keep; older ones are deleted when a new one is whole.
    """

    root: Path
    num_to_keep: int

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a folder, and make it the checkpoint of `step` once it is on disk.

        Raises:
            OSError: it cannot be written, as on a full disk; earlier checkpoints are unchanged.
        """
        target = self.root / f"checkpoint_{step:08d}"
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            write(partial)
            (partial / _MANIFEST).write_text(json.dumps(_describe(partial), indent=1))
            for path in (*partial.iterdir(), partial):
                _flush_to_disk(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(target, ignore_errors=True)  # damaged, or the run would have resumed from it
        os.replace(partial, target)
        _flush_to_disk(self.root)
        for old in self._found()[: -self.num_to_keep]:
            shutil.rmtree(old)
        return target

    def copy(self, other: Path) -> Path:
        """Copy a whole checkpoint of another run into this one, at the same step."""

        def write(partial: Path) -> None:
            shutil.copytree(other, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(_MANIFEST))

        return self.save(int(other.name.rpartition("_")[2]), write)

    def newest(self) -> Path | None:
        """Find the newest checkpoint that is whole; log a warning for each newer one that is damaged."""
        for folder in reversed(self._found()):
            damage = find_damage(folder)
            if damage is None:
                return folder
            _LOG.warning("Checkpoint %s is damaged (%s): resuming from the one before", folder, damage)
        return None

    def sweep(self) -> None:
        """Delete unfinished and damaged checkpoints, and all but the newest `num_to_keep`."""
        for partial in self.root.glob("checkpoint_*.partial"):
            shutil.rmtree(partial)
        for folder in self._found():
            if find_damage(folder) is not None:
                shutil.rmtree(folder)
        for old in self._found()[: -self.num_to_keep]:
            shutil.rmtree(old)

    def _found(self) -> list[Path]:
        return sorted(path for path in self.root.glob(_PATTERN) if path.is_dir())


def find_damage(folder: Path) -> str | None:
    """Describe in a few words how a checkpoint differs from its manifest; None when it is whole."""
    try:
        expected = json.loads((folder / _MANIFEST).read_text())
        found = _describe(folder)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{', '.join(differing)} not as written" if differing else None


def _describe(folder: Path) -> dict[str, dict[str, object]]:
    files = sorted(path for path in folder.iterdir() if path.name != _MANIFEST)
    return {path.name: {"num_bytes": path.stat().st_size, "sha256": _digest(path)} for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_to_disk(path: Path) -> None:
    """Make the system write a file's bytes, or a folder's names, so that a crash of the machine cannot lose them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
