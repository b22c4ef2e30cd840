"""Folders that all nodes must see; a node that sees another disk is in tests/faults/test_many_nodes.py."""

import pytest

from pipelines.runtime import shared_storage
from pipelines.runtime.shared_storage import check_shared


@pytest.fixture
def two_nodes(local_ray, monkeypatch):
    """Ray tells of one node more; tasks for it run on the only one there is."""
    nodes = shared_storage.ray.nodes()
    other = {**nodes[0], "NodeID": "1" * len(nodes[0]["NodeID"]), "NodeManagerHostname": "elsewhere"}
    monkeypatch.setattr("pipelines.runtime.shared_storage.ray.nodes", lambda: [*nodes, other])


def test_nothing_is_written_where_there_is_one_node(local_ray, tmp_path):
    check_shared(written=tmp_path / "runs", read=[tmp_path / "absent"])
    assert not (tmp_path / "runs").exists()


def test_what_every_node_sees_is_shared_and_nothing_is_left(two_nodes, tmp_path):
    check_shared(written=tmp_path / "runs", read=[tmp_path])
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_node_that_does_not_see_what_is_read_is_named(two_nodes, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.runtime.shared_storage._PATIENCE_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"absent is not shared by all nodes: elsewhere does not see .*T3D_HOME"):
        check_shared(written=tmp_path, read=[tmp_path / "absent"])
    assert list(tmp_path.iterdir()) == []
