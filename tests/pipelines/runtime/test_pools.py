"""What runs where, and what fits: against what Ray tells of nodes, and of what an autoscaler may add."""

import json

import pytest

from pipelines.runtime import pools

GIB = 2.0**30


def node(pool=None, *, alive=True, **resources):
    labels = {pools.LABEL: pool} if pool else {}
    return {"Alive": alive, "Labels": labels, "Resources": {"object_store_memory": GIB} | resources}


@pytest.fixture
def cluster(monkeypatch):
    """Makes Ray tell of these nodes, and T3D_POOLS of what an autoscaler may add."""

    def set_up(*nodes, declared=None):
        monkeypatch.setattr("pipelines.runtime.pools.ray.nodes", lambda: list(nodes))
        monkeypatch.setenv("T3D_POOLS", json.dumps(declared) if declared else "")

    return set_up


POOLS = [node("head"), node("decode", CPU=4.0), node("train", CPU=8.0, GPU=2.0), node("train", CPU=8.0, GPU=2.0)]


def test_without_labels_any_node_will_do(cluster):
    cluster(node(CPU=2.0), node(CPU=3.0), node(CPU=9.0, alive=False))
    assert pools.selector("decode") == pools.selector("train") == {}
    assert pools.cpus("decode") == pools.cpus("train") == 5
    assert pools.object_store_bytes("decode") == 2 * GIB


def test_labelled_nodes_keep_decoding_and_training_apart(cluster):
    cluster(*POOLS)
    assert pools.selector("decode") == {pools.LABEL: "decode"}
    assert pools.selector("train") == {pools.LABEL: "train"}
    assert (pools.cpus("decode"), pools.cpus("train")) == (4, 16)
    assert pools.object_store_bytes("decode") == GIB


@pytest.mark.parametrize(
    ("num_workers", "each", "message"),
    [
        (4, {"CPU": 1.0}, None),
        (5, {"CPU": 1.0}, r"5 workers with 1 CPU each and 1 CPU that must be left for decoding make 6 CPU, but the cl"),
        (1, {"CPU": 1.0, "GPU": 1.0}, r"make 1 GPU, but the cluster has 0: .*use_gpu false"),
        (2, {"CPU": 2.0}, r"room for 1: lower"),
        (0, {"CPU": 9.0}, None),
        (9, {"CPU": 0.0}, None),
    ],
)
def test_workers_must_fit_beside_a_decoder_where_all_share_the_nodes(cluster, num_workers, each, message):
    cluster(node(CPU=2.0), node(CPU=1.0), node(CPU=1.0), node(CPU=1.0))
    if message is None:
        pools.check_workers_fit(num_workers, each)
    else:
        with pytest.raises(ValueError, match=message):
            pools.check_workers_fit(num_workers, each)


def test_in_a_pool_of_their_own_workers_may_take_every_cpu(cluster):
    cluster(*POOLS)
    pools.check_workers_fit(16, {"CPU": 1.0})
    pools.check_workers_fit(4, {"CPU": 4.0, "GPU": 1.0})
    with pytest.raises(ValueError, match=r"make 5 GPU, but the nodes labelled t3d.io/pool=train have 4: lower"):
        pools.check_workers_fit(5, {"CPU": 1.0, "GPU": 1.0})
    assert pools.room_for_workers({"CPU": 1.0}) == 16


def test_a_cluster_of_labelled_nodes_of_which_none_decodes_is_refused(cluster):
    cluster(node("head"), node("train", CPU=8.0))
    with pytest.raises(ValueError, match=r"no node with a CPU is labelled t3d\.io/pool=decode"):
        pools.check_workers_fit(1, {"CPU": 1.0})


def test_what_an_autoscaler_may_add_counts(cluster):
    declared = {"decode": {"nodes": 3, "CPU": 4}, "train": {"nodes": 2, "CPU": 8, "GPU": 8}}
    cluster(node("head"), node("decode", CPU=4.0), declared=declared)
    pools.check_workers_fit(16, {"CPU": 1.0, "GPU": 1.0})
    assert pools.room_for_workers({"CPU": 1.0, "GPU": 1.0}) == 16
    assert pools.room_for_groups(2, {"CPU": 1.0, "GPU": 1.0}) == 8
    assert pools.room_for_workers({"CPU": 1.0}) == 0  # now: an elastic run without GPUs begins with its fewest
    assert pools.cpus("train") == 0  # now
    with pytest.raises(ValueError, match="17 workers with 1 CPU each make 17 CPU, but the nodes labelled"):
        pools.check_workers_fit(17, {"CPU": 1.0, "GPU": 1.0})
    cluster(node("head"), declared=declared)  # before the first node is there
    pools.check_decoders()


@pytest.mark.parametrize("text", ["{", "[]", '{"train": 8}', '{"train": {"CPU": 8}}', '{"train": {"nodes": "x"}}'])
def test_what_is_said_of_pools_must_be_readable(cluster, monkeypatch, text):
    cluster(*POOLS)
    monkeypatch.setenv("T3D_POOLS", text)
    with pytest.raises(ValueError, match=r"T3D_POOLS .* cannot be read .*write it as .*or unset it"):
        pools.check_decoders()


def test_room_leaves_a_cpu_where_all_share_the_nodes(cluster):
    cluster(node(CPU=4.0), node(CPU=2.0))
    assert pools.room_for_workers({"CPU": 1.0}) == 5
    assert pools.room_for_workers({"CPU": 3.0}) == 1
    assert pools.room_for_workers({"CPU": 0.0}) > 1000
