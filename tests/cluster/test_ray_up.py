"""What `ray up` is given passes Ray's own check, which finds typos, and labels the pools as the jobs expect."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

FOLDER = Path(__file__).parents[2] / "cluster" / "ray_up"
FILES = sorted(FOLDER.glob("*.yaml"))


def check(config):
    """Raise where `ray up` would; it looks at the whole file before it asks a cloud anything."""
    validate_config(prepare_config(copy.deepcopy(config)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_ray_accepts_it_and_finds_a_typo(file):
    config = yaml.safe_load(file.read_text())
    check(config)
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        check(config | {"max_worker": 3})
    with pytest.raises(jsonschema.ValidationError, match="ssh_users"):
        check(config | {"auth": config["auth"] | {"ssh_users": "ubuntu"}})


@pytest.mark.parametrize(
    ("name", "images"),
    [("aws", {"head": "cpu", "decode": "cpu", "train": "gpu"}), ("on_premise", {"local.cluster.node": "gpu"})],
)
def test_the_autoscaler_finds_the_image_of_every_node(name, images):
    """It starts all nodes but the head, and reads their image by rules that the check above does not know."""
    config = prepare_config(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    autoscaling = AutoscalingConfig(config, skip_content_hash=True)
    found = {node_type: autoscaling.get_docker_config(node_type)["image"] for node_type in images}
    assert found == {node_type: f"REGISTRY/t3d:{target}-TAG" for node_type, target in images.items()}
    assert images.keys() == config["available_node_types"].keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_start_asks_for_the_token_and_none_opens_the_dashboard(file):
    config = yaml.safe_load(file.read_text())
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = (command for command in commands if "ray start" in command)
        assert start.startswith("RAY_AUTH_MODE=token ")
        assert "0.0.0.0" not in start
    assert any("auth_token" in path for path in config["file_mounts"])


def test_nodes_of_aws_are_labelled_by_their_type():
    config = yaml.safe_load((FOLDER / "aws.yaml").read_text())
    types = config["available_node_types"]
    assert {name: each["labels"] for name, each in types.items()} == {
        name: {"t3d.io/pool": name} for name in ("head", "decode", "train")
    }
    assert types["head"]["resources"] == {"CPU": 0}
    told = next(each for each in config["docker"]["run_options"] if "T3D_POOLS" in each)
    declared = json.loads(told.partition("=")[2].partition("=")[2].strip().strip("'"))
    assert {pool: each["nodes"] for pool, each in declared.items()} == {
        pool: types[pool]["max_workers"] for pool in ("decode", "train")
    }
