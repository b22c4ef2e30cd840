"""Whether all nodes of the cluster see the folders of a job; without this check a job would fail hours later."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from t3d_core.errors import UserError

# A network file system may show the files of another node with a delay of seconds.
_PATIENCE_SECONDS = 5.0
_ANSWER_SECONDS = 60.0


def check_shared(*, written: Path | None = None, read: Sequence[Path] = ()) -> None:
    """Write a file here and look for it, and for all input, on every other node.

    Args:
        written: folder that the job writes to, created if it is absent; None where only its driver writes.
        read: files or folders that it reads.

    Raises:
        UserError: a node does not see one of them, or does not answer.
    """
    here = ray.get_runtime_context().get_node_id()
    name_of = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    others = name_of.keys() - {here}
    if not others:
        return
    with _probe(written) as probes:
        paths = [str(path) for path in (*probes, *read)]
        answers = {}
        for node_id in others:
            on_node = NodeAffinitySchedulingStrategy(node_id, soft=True)
            answers[node_id] = _unseen.options(scheduling_strategy=on_node).remote(paths)
        ray.wait(list(answers.values()), num_returns=len(answers), timeout=_ANSWER_SECONDS)
        for node_id, answer in answers.items():
            what = "does not see the files that are there on"
            try:
                missing = ray.get(answer, timeout=0)
            except GetTimeoutError:
                missing, what = (
                    paths[:1],
                    f"did not answer within {_ANSWER_SECONDS:g} s when asked for the files on",
                )
            except RayError:  # this node is being lost: no reason to refuse the others
                continue
            if missing:
                folder = written if missing[0] in map(str, probes) else missing[0]
                raise UserError(
                    f"{folder} is not shared by all nodes: {name_of[node_id]} {what} {name_of[here]}; mount the same "
                    "storage on every node and name it with T3D_HOME (or --storage, --output)"
                )


@contextlib.contextmanager
def _probe(folder: Path | None) -> Iterator[list[Path]]:
    """A new file in the folder; nothing without a folder."""
    if folder is None:
        yield []
        return
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{uuid.uuid4().hex}"
    probe.touch()
    try:
        yield [probe]
    finally:
        probe.unlink(missing_ok=True)


@ray.remote(num_cpus=0)
def _unseen(paths: list[str]) -> list[str]:
    """Those of `paths` that this node does not see even after a while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (missing := [path for path in paths if not Path(path).exists()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return missing
