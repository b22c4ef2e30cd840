"""A cluster without train nodes, until an autoscaler starts labelled ones for a job: `pytest -m faults`."""

import json

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.faults.ray_nodes import Nodes
from tests.faults.training_faults import Job, assert_every_step_once

COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def group(pool, *, fewest, most):
    """Nodes of one CPU."""
    labels = {"t3d.io/pool": pool}
    counts = {"min_workers": fewest, "max_workers": most}
    return {"resources": {"CPU": 1}, "node_config": {}, "labels": labels, **counts}


def autoscaler(address):
    """The autoscaler's configuration: one node that decodes and up to two that train, simulated on this machine."""
    return {
        "cluster_name": "t3d",
        "max_workers": 3,
        "idle_timeout_minutes": 1,
        "upscaling_speed": 1.0,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", *COMMANDS)},
        "provider": {
            "type": "external",  # Ray's wheel lacks the defaults of "fake_multinode"
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "decode": group("decode", fewest=1, most=1),
            "train": group("train", fewest=0, most=2),
        },
    }


def test_a_job_is_given_the_train_nodes_that_it_asks_for_and_no_more_than_there_can_be(tiny_shards, tmp_path):
    arguments = ["--epochs", "40", "--scaling.num_workers"]
    with Nodes() as nodes, Job(tmp_path / "fits", tiny_shards, *arguments, "2") as job:
        can_be = {"decode": {"nodes": 1, "CPU": 1}, "train": {"nodes": 2, "CPU": 1}}
        nodes.environment["T3D_POOLS"] = json.dumps(can_be)
        job.environment |= nodes.environment | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120"}
        config = tmp_path / "autoscaler.json"
        config.write_text(json.dumps(autoscaler(nodes.environment["RAY_ADDRESS"])))
        nodes.start_head(num_cpus=0, pool="head", autoscaler=config)
        with Job(tmp_path / "too large", tiny_shards, *arguments, "3") as refused:
            refused.environment |= nodes.environment
            assert refused.run(seconds=120) == 1
            assert "make 3 CPU, but the nodes labelled t3d.io/pool=train have 2: lower" in refused.last_line()
        assert job.run(seconds=600) == 0, job.last_line()
        assert_every_step_once(job, 145)


def test_an_elastic_run_without_gpus_begins_with_the_train_nodes_that_are_there(tiny_shards, tmp_path):
    """Ray also counts the CPUs of the decode node, and would wait for two workers for ever."""
    with Nodes() as nodes, Job(tmp_path, tiny_shards, "--epochs", "40", "--scaling.num_workers", "[1, 2]") as job:
        can_be = {"decode": {"nodes": 1, "CPU": 1}, "train": {"nodes": 2, "CPU": 1}}
        job.environment |= nodes.environment | {"T3D_POOLS": json.dumps(can_be)}
        nodes.start_head(num_cpus=0, pool="head")
        for pool in ("decode", "train"):
            nodes.add(num_cpus=1, pool=pool)
        assert job.run(seconds=300) == 0, job.last_line()
        assert_every_step_once(job, 145)
