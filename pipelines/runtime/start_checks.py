"""Checks of what every job needs, before the work that takes long."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.runtime import pools, session
from pipelines.runtime.shared_storage import check_shared
from pipelines.tracking.store import check_answers


def check_start(
    *,
    tracking_uri: str,
    num_workers: int,
    resources_of_worker: Mapping[str, float],
    written: Path | None = None,
    read: Sequence[Path] = (),
) -> None:
    """Check that MLflow answers, Ray has room for the workers, and all nodes see the same folders.

    Args:
        tracking_uri: the store, as `resolve_tracking_uri` gives it.
        num_workers: processes that run a network.
        resources_of_worker: as Ray names them, such as CPU and GPU.
        written: a folder that the nodes write to.
        read: folders that they read from.

    Raises:
        UserError: something is missing; the message names the cure.
    """
    check_answers(tracking_uri)
    session.connect()
    pools.check_workers_fit(num_workers, dict(resources_of_worker))
    check_shared(written=written, read=read)
