"""STORAGE/NAME of a run or a search: one process at a time works there, and a later start of the same name resumes it.

STORAGE/NAME/run.json, search.json   record of the start: fingerprint, MLflow run, and what the job adds
STORAGE/NAME/recipe.yaml             its settings
STORAGE/NAME/.mark                   identifies the folder
STORAGE/NAME/.lock                   held by the process
"""

import json
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pipelines.runtime.files import exclusive_folder, whole_file
from pipelines.runtime.job_run import open_job_run
from pipelines.settings.recipe import to_yaml
from pipelines.settings.section import Section
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.runs import Run
from t3d_core.errors import UserError

_AT_WORK = {"run": "trained", "search": "run"}


@dataclass(frozen=True)
class NamedFolder:
    """The folder of a run or a search that has a name.

    Attributes:
        path: STORAGE/NAME.
        kind: what it holds.
        fingerprint: hexadecimal; it covers everything that the results follow from.
    """

    path: Path
    kind: Literal["run", "search"]
    fingerprint: str

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the folder for this process.

        Raises:
            UserError: another process holds it.
        """
        return exclusive_folder(self.path, when_taken=self._refuse)

    def _refuse(self, holder: str) -> None:
        raise UserError(
            f"{self.describe()} is being {_AT_WORK[self.kind]} by {holder}: wait for it, or give another --name"
        )

    def describe(self) -> str:
        """Kind, name and place of the folder."""
        return f"{self.kind} {self.path.name!r} in {self.path.parent}"

    def known(self, *, when_changed: str) -> dict[str, Any] | None:
        """What an earlier start recorded; None without an earlier start.

        Args:
            when_changed: end of the error message, such as "made with other settings".

        Raises:
            UserError: the earlier start had another fingerprint.
        """
        record = read_record(self._record_file)
        if record is not None and record["fingerprint"] != self.fingerprint:
            then, now = (each[:12] for each in (record["fingerprint"], self.fingerprint))
            raise UserError(
                f"{self.describe()} was {when_changed} (fingerprint {then}, now {now}; see "
                f"{self.recipe_file}): give another --name"
            )
        return record

    def open_run(
        self,
        config: Section,
        tracking: TrackingConfig,
        *,
        known: Mapping[str, Any] | None,
        stage: str,
        run_name: str | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
        params: Mapping[str, object] | None = None,
    ) -> AbstractContextManager[Run]:
        """Open the folder's MLflow run as `open_job_run`: a new one, or the one that is `known`.

        Args:
            config: settings of the job.
            tracking: the store and the experiment.
            known: what an earlier start recorded.
            stage: which job, a tag.
            run_name: by default the folder's name.
            tags: more tags.
            params: parameters of a new run; by default all settings.
        """
        return open_job_run(
            config,
            tracking,
            stage=stage,
            run_name=run_name or self.path.name,
            tags=tags,
            params=params,
            run_id=known["mlflow_run_id"] if known else None,
            mark=self._mark(),
        )

    def record(self, config: Section, run: Run, **added: object) -> None:
        """Write the settings, and last the record of the start with `added`: a folder with a record is complete."""
        self.recipe_file.write_text(to_yaml(config))
        self.extend_record({"fingerprint": self.fingerprint, "mlflow_run_id": run.run_id}, **added)

    def extend_record(self, known: Mapping[str, Any], **added: object) -> None:
        """Write the record of a start anew, with `added` to what is `known`."""
        with whole_file(self._record_file) as partial:
            partial.write_text(json.dumps({**known, **added}, indent=1))

    @property
    def recipe_file(self) -> Path:
        """The settings of the first start."""
        return self.path / "recipe.yaml"

    @property
    def _record_file(self) -> Path:
        return self.path / f"{self.kind}.json"

    def _mark(self) -> str:
        """A text that identifies the folder, also compared with a deleted one of the same name.

        It finds a run that MLflow has, but whose id is not in the folder because the process was killed.
        """
        file = self.path / ".mark"
        if not file.is_file():
            with whole_file(file) as partial:
                partial.write_text(uuid.uuid4().hex)
        return file.read_text()


def read_record(file: Path) -> dict[str, Any] | None:
    """The record of a named folder, from its `run.json` or `search.json`; None before there is one."""
    return json.loads(file.read_text()) if file.is_file() else None
