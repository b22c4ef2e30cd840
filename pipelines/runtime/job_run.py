"""A job's settings become its MLflow run, in the store that they name: parameters, and `recipe.yaml` to start it again.

The run ends as FINISHED, or as FAILED or KILLED when an exception leaves the block.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from pipelines.runtime.paths import base_folder
from pipelines.settings.recipe import to_yaml
from pipelines.settings.section import Section, flatten
from pipelines.tracking.commit import commit_tag
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.runs import Run, start_run
from pipelines.tracking.store import resolve_tracking_uri


def tracking_uri_of(tracking: TrackingConfig) -> str:
    """The store that the settings name; relative paths start from `base_folder`.

    Raises:
        UserError: the address holds a password.
    """
    return resolve_tracking_uri(tracking.uri, base=base_folder())


@contextmanager
def open_job_run(
    config: Section,
    tracking: TrackingConfig,
    *,
    stage: str,
    run_name: str,
    tags: Mapping[str, str] = MappingProxyType({}),
    params: Mapping[str, object] | None = None,
    run_id: str | None = None,
    mark: str | None = None,
    on_open: Callable[[Run], object] = lambda run: None,
) -> Iterator[Run]:
    """Open the MLflow run of a job, or resume one.

    Args:
        config: settings of the job, logged when the run is new.
        tracking: the store and the experiment.
        stage: which job, a tag.
        run_name: name of a new run.
        tags: more tags, in addition to the commit of the code.
        params: parameters of a new run; by default all settings.
        run_id: the run to resume; None for a new one.
        mark: as in `start_run`.
        on_open: called with the run before anything is logged to it.

    Raises:
        UserError: the store cannot be opened, or the run or the experiment is gone from it.
    """
    run = start_run(
        tracking_uri=tracking_uri_of(tracking),
        experiment=tracking.experiment,
        run_name=run_name,
        run_id=run_id,
        tags={"stage": stage, **commit_tag(), **tags},
        mark=mark,
    )
    with run:
        on_open(run)
        if run_id is None:
            run.log_params(flatten(config) if params is None else params)
            run.log_text(to_yaml(config), "recipe.yaml")
        yield run
