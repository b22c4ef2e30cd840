"""A server of a small network, with a real listener, as `jobs/serve.py` runs it; one for all tests of a file."""

import http.client
import json
import shutil
import socket
from typing import NamedTuple

import pytest

from tests.pipelines.evaluate.small_network import CLIP, save_network


class Answer(NamedTuple):
    """What came back."""

    status: int
    content: dict
    headers: dict


class Client:
    """Sends requests to a server."""

    def __init__(self, port):
        self.port = port

    def connect(self, *, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def __call__(self, method, path, body=None, **headers):
        connection = self.connect()
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return Answer(response.status, json.loads(content) if is_json else content, dict(response.headers))
        finally:
            connection.close()

    def predict(self, body, query="", **headers):
        return self("POST", f"/predict{query}", body, **headers)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def weights(synthetic_shards, tmp_path_factory):
    """A network that knows some of the synthetic classes."""
    return save_network(synthetic_shards, tmp_path_factory.mktemp("weights") / "model.safetensors", CLIP)


@pytest.fixture(scope="session")
def videos(synthetic_shards, tmp_path_factory):
    """Some videos of a data set."""
    folder = tmp_path_factory.mktemp("videos")
    return [shutil.copy(path, folder) for path in sorted(synthetic_shards.rglob("*.mp4"))[::7]]
