"""A cluster on one machine that trials damage: a head and nodes, each a `ray start` on ports of its own."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from pipelines.runtime.pools import LABEL
from tests.faults.hosts import Host
from tests.faults.training_faults import REPO, below, end, title_of, wait_for

_OF_AUTOSCALER = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}


class Node(NamedTuple):
    """One `ray start --block`, the ancestor of all processes of the node."""

    process: subprocess.Popen
    log: Path

    def train_workers(self) -> list[int]:
        """Process ids of the train workers on it."""
        return sorted(pid for pid in below([self.process.pid]) if title_of(pid).startswith("ray::RayTrainWorker"))

    def kill(self) -> None:
        """Let it vanish: all its processes at once."""
        pids = below([self.process.pid])
        for pid in sorted(pids):
            end(pid)
        self.process.wait()

    def announce_end(self) -> None:
        """Send SIGTERM, as Kubernetes or a spot instance does; Ray then drains the node."""
        self.process.terminate()


class Nodes:
    """A context that starts nodes and leaves none behind.

    Attributes:
        environment: variables by which a job finds the cluster and authenticates.
        dashboard: address for `ray job submit`.
        token: file with the token.
    """

    def __init__(self, *, address: str = "127.0.0.1") -> None:
        """Nodes on other hosts reach the head at `address`."""
        self._folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="t3d"))  # short: Ray's sockets lie inside
        self.token = self._folder / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        self._nodes: list[Node] = []
        self._address = address
        self._gcs, dashboard = free_ports(2)
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), "OMP_NUM_THREADS": "1"}
        self.environment |= {"RAY_ADDRESS": f"{address}:{self._gcs}"}
        self.environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self._nodes):
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start_head(
        self,
        *,
        num_cpus: int,
        pool: str | None = None,
        redis: Mapping[str, str] = MappingProxyType({}),
        autoscaler: Path | None = None,
    ) -> Node:
        """Start the head, or another one after it was killed; return it when jobs can be submitted.

        Args:
            num_cpus: CPUs of the head.
            pool: its label; by default it has no label.
            redis: variables by which it finds the Redis with the cluster's state; by default its memory has the state.
            autoscaler: configuration of an autoscaler that simulates nodes on this machine; by default there is none.
        """
        ports = ["--port", self._gcs, "--dashboard-port", self.dashboard.rpartition(":")[2]]
        session = self._folder / f"ray{len(self._nodes)}"
        where = ["--head", *ports, "--temp-dir", str(session), "--node-ip-address", self._address]
        where += ["--num-cpus", str(num_cpus), *_labels(pool)]
        where += ["--autoscaling-config", str(autoscaler)] if autoscaler else []
        node = self._start(where, environment={**redis, **(_OF_AUTOSCALER if autoscaler else {})})
        wait_for(lambda: node.process.poll() is not None or _answers(f"{self.dashboard}/api/version"), seconds=120)
        assert node.process.poll() is None, node.log.read_text()
        return node

    def add(
        self,
        *,
        num_cpus: int,
        resources: str = "{}",
        pool: str | None = None,
        host: Host | None = None,
        inside: Sequence[str] = (),
    ) -> Node:
        """Add a node to the head's cluster; return it when it has joined.

        Args:
            num_cpus: CPUs of the node.
            resources: its other resources, as JSON.
            pool: its label; by default it has no label.
            host: where it runs; by default on this machine.
            inside: prefix of its command, to change what it sees.
        """
        where = ["--address", self.environment["RAY_ADDRESS"], "--num-cpus", str(num_cpus), "--resources", resources]
        where += ["--node-ip-address", host.address] if host else []
        node = self._start([*where, *_labels(pool)], inside=host.inside if host else inside)
        wait_for(lambda: node.process.poll() is not None or "Ray runtime started" in node.log.read_text(), seconds=120)
        assert node.process.poll() is None, node.log.read_text()
        return node

    def _start(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        inside: Sequence[str] = (),
    ) -> Node:
        agent, client = free_ports(2)
        command = ["ray", "start", "--block", "--disable-usage-stats", "--object-store-memory", "200000000", *arguments]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", agent]
        command += ["--ray-client-server-port", client] if "--head" in arguments else []
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "T3D_"))
        }
        of_node = inherited | self.environment | {"PYTHONUNBUFFERED": "1"} | environment
        del of_node["RAY_ADDRESS"]
        log = self._folder / f"node{len(self._nodes)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*inside, *command],
                cwd=REPO,
                env=of_node,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._nodes.append(Node(process, log))
        return self._nodes[-1]


def _labels(pool: str | None) -> list[str]:
    return [] if pool is None else ["--labels", f"{LABEL}={pool}"]


def free_ports(count: int) -> list[str]:
    """Ports without a listener."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # it asks for the token
    except OSError:
        return False
