"""Which nodes decode and which train, and how many workers they have room for.

Nodes may carry the label `t3d.io/pool` (cluster/ sets it). Decoding then runs on the nodes labelled `decode`. All that
runs a network (train workers, a teacher, tests, trials) runs on the nodes labelled `train`. Neither takes CPUs of the
other. Where no node is labelled, for example on one machine, all share all nodes, and at least one CPU is left for
decoding.

Ray does not report what an autoscaler may add. The variable T3D_POOLS states it where jobs start: for each pool the
largest number of nodes and the resources of each:

    {"decode": {"nodes": 4, "CPU": 30}, "train": {"nodes": 8, "CPU": 64, "GPU": 8}}.
"""

import json
import os
import sys
from dataclasses import dataclass
from typing import Any, Literal

import ray

from t3d_core.errors import UserError

LABEL = "t3d.io/pool"
Pool = Literal["decode", "train"]
POOLS_VARIABLE = "T3D_POOLS"


@dataclass(frozen=True)
class _Nodes:
    """A number of nodes, each with these resources."""

    count: int
    resources: dict[str, float]


def selector(pool: Pool) -> dict[str, str]:
    """The labels that Ray requires of a node of this pool; empty where no node is labelled."""
    return {LABEL: pool} if _is_labelled(_alive()) else {}


def cpus(pool: Pool) -> float:
    """CPUs of the present nodes of a pool."""
    return _sum(pool, "CPU")


def object_store_bytes(pool: Pool) -> float:
    """Bytes of the object stores of the present nodes of a pool."""
    return _sum(pool, "object_store_memory")


def check_decoders() -> None:
    """Refuse a cluster without a node that may decode: Ray would wait for ever.

    Raises:
        UserError: no node with a CPU may decode.
    """
    if not any(nodes.resources.get("CPU", 0.0) for nodes in _possible("decode")):
        is_shared = not _is_labelled(_alive())
        raise UserError(
            "no node of the cluster has a CPU for tasks: add one"
            if is_shared
            else f"no node with a CPU is labelled {LABEL}=decode, though others are labelled: add one, or label none"
        )


def check_workers_fit(num_workers: int, resources_of_worker: dict[str, float]) -> None:
    """Refuse workers that leave no CPU for decoding: Ray would wait for ever without a message.

    Nodes that an autoscaler may still add count as present.

    Raises:
        UserError: the cluster has fewer CPUs or GPUs than the workers and one decoder need, or as `check_decoders`.
    """
    check_decoders()
    if not num_workers:
        return
    possible, is_shared = _possible("train"), not _is_labelled(_alive())
    where = "the cluster has" if is_shared else f"the nodes labelled {LABEL}=train have"
    for resource, each in resources_of_worker.items():
        spare = 1.0 if resource == "CPU" and is_shared else 0.0
        needed = num_workers * each + spare
        there = sum(nodes.count * nodes.resources.get(resource, 0.0) for nodes in possible)
        if needed > there:
            raise UserError(
                f"{num_workers} workers with {each:g} {resource} each"
                f"{' and 1 CPU that must be left for decoding' if spare else ''} make {needed:g} {resource}, "
                f"but {where} {there:g}: lower the number of workers or what each reserves"
                + (", or train without GPUs (use_gpu false)" if resource == "GPU" and not there else "")
            )
    if (places := _places(possible, resources_of_worker)) < num_workers:
        needs = " and ".join(f"{each:g} {resource}" for resource, each in resources_of_worker.items())
        raise UserError(
            f"{num_workers} workers with {needs} each do not fit: each needs them on one node, and the nodes have "
            f"room for {places}: lower the number of workers or what each reserves"
        )


def room_for_workers(resources_of_worker: dict[str, float]) -> int:
    """How many workers fit when a CPU is left for decoding, including the nodes that an autoscaler may add.

    For workers without GPUs in a pool of their own only the present nodes count. Ray's elastic training counts the CPUs
    of all nodes, also of those that decode, and would wait for ever for workers that do not fit.
    """
    possible, each = _possible("train"), resources_of_worker.get("CPU", 0.0)
    if _is_labelled(_alive()):
        return _places(possible if resources_of_worker.get("GPU") else _there("train"), resources_of_worker)
    places = _places(possible, resources_of_worker)
    if not each:
        return places
    there = sum(nodes.count * nodes.resources.get("CPU", 0.0) for nodes in possible)
    return min(places, int((there - 1) / each))


def room_for_groups(num_workers: int, resources_of_worker: dict[str, float]) -> int:
    """How many groups of `num_workers` workers fit, each group with a CPU for decoding.

    Where all share the nodes, the free resources count; in a pool, also the nodes that an autoscaler may add.
    """
    places = _places(_possible("train"), resources_of_worker) // num_workers
    if _is_labelled(_alive()):
        return places
    needed = {name: num_workers * each for name, each in resources_of_worker.items() if each}
    needed["CPU"] = needed.get("CPU", 0.0) + 1.0
    free = ray.available_resources()
    room = min(int(free.get(name, 0.0) / amount) for name, amount in needed.items())
    return min(room, places)


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _is_labelled(nodes: list[dict[str, Any]]) -> bool:
    return any(LABEL in node["Labels"] for node in nodes)


def _in_pool(pool: Pool) -> list[dict[str, Any]]:
    nodes = _alive()
    return [node for node in nodes if node["Labels"].get(LABEL) == pool] if _is_labelled(nodes) else nodes


def _sum(pool: Pool, resource: str) -> float:
    return sum(nodes.resources.get(resource, 0.0) for nodes in _there(pool))


def _there(pool: Pool) -> list[_Nodes]:
    return [_Nodes(1, node["Resources"]) for node in _in_pool(pool)]


def _possible(pool: Pool) -> list[_Nodes]:
    """The nodes of a pool, including those that an autoscaler may add."""
    declared = _declared_pools().get(pool)
    return _there(pool) if declared is None else [declared]


def _declared_pools() -> dict[str, _Nodes]:
    text = os.environ.get(POOLS_VARIABLE) or "{}"
    try:
        return {
            pool: _Nodes(
                int(of_each["nodes"]), {name: float(each) for name, each in of_each.items() if name != "nodes"}
            )
            for pool, of_each in json.loads(text).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{POOLS_VARIABLE} {text!r} cannot be read ({type(error).__name__}: {error}): write it as "
            '{"train": {"nodes": 8, "CPU": 64, "GPU": 8}}, or unset it'
        ) from error


def _places(possible: list[_Nodes], resources_of_worker: dict[str, float]) -> int:
    """Workers that the nodes can hold, each on one node."""
    needed = {name: each for name, each in resources_of_worker.items() if each}
    if not needed:
        return sys.maxsize
    return sum(
        nodes.count * min(int(nodes.resources.get(name, 0.0) / each) for name, each in needed.items())
        for nodes in possible
    )
