"""MLflow as in cluster/mlflow, on this machine: its server, PostgreSQL and a local S3, each on a port of its own.

The server's settings are those of cluster/mlflow/kustomization.yaml, except the addresses of PostgreSQL and S3.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import yaml
from moto.server import ThreadedMotoServer

from tests.faults.ray_nodes import free_ports
from tests.faults.training_faults import REPO, wait_for

SETTINGS = REPO / "cluster" / "mlflow" / "kustomization.yaml"
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]


def missing() -> str | None:
    """What this machine lacks for the service; None if it lacks nothing."""
    if not _POSTGRES:
        return "needs PostgreSQL's server (Debian: postgresql)"
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return "PostgreSQL refuses to run as root, and there is no user postgres"
    return None


class TrackingService:
    """A context that starts all three and leaves nothing behind.

    Attributes:
        uri: of the server.
        password: of PostgreSQL.
        server: its process; its children serve.
        log: what it printed.
        bucket: where artifacts lie.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="t3d"))
        self._folder.chmod(0o755)
        self.password = secrets.token_hex(16)
        postgres, s3, server = free_ports(3)
        self._postgres_port, self._s3_port, self._port = postgres, s3, server
        self.uri = f"http://127.0.0.1:{server}"
        literals = yaml.safe_load(SETTINGS.read_text())["configMapGenerator"][0]["literals"]
        self._settings = dict(literal.split("=", 1) for literal in literals)
        self._settings["MLFLOW_SERVER_ALLOWED_HOSTS"] += f",127.0.0.1:{server}"
        self.bucket = self._settings["MLFLOW_ARTIFACTS_DESTINATION"].removeprefix("s3://").partition("/")[0]
        self.log = self._folder / "server.log"
        self._postgres: subprocess.Popen | None = None

    def __enter__(self) -> "TrackingService":
        with contextlib.ExitStack() as stack:  # what is up is ended where the next does not start
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            stack.callback(self._stop_postgres)
            self._start_postgres()
            s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=int(self._s3_port), verbose=False)
            s3.start()
            stack.callback(s3.stop)
            self._client().create_bucket(Bucket=self.bucket)
            stack.callback(self.stop_server)
            self.start_server()
            self._ends = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def start_server(self) -> None:
        """Start MLflow's server; give when it answers."""
        environment = os.environ | self._settings | self._credentials() | {"PGPASSWORD": self.password}
        where = f"postgresql://mlflow@127.0.0.1:{self._postgres_port}/mlflow"
        environment |= {
            "MLFLOW_BACKEND_STORE_URI": where,
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self._s3_port}",
        }
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            self._port,
            "--workers",
            "1",
        ]
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(lambda: self.status("localhost", "/health") == 200 or self.server.poll() is not None, seconds=120)
        assert self.server.poll() is None, self.log.read_text()

    def stop_server(self) -> None:
        """Kill all processes of the server."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def status(self, host: str, path: str = "/api/2.0/mlflow/experiments/search?max_results=1") -> int | None:
        """The status that the server answers to a request for `host`; None without an answer."""
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.uri + path, headers={"Host": host}), timeout=10
            ) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def artifacts(self) -> list[str]:
        """Keys of all objects in the bucket."""
        return [each["Key"] for each in self._client().list_objects_v2(Bucket=self.bucket).get("Contents", ())]

    def _credentials(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": self.password, "AWS_DEFAULT_REGION": "us-east-1"}

    def _client(self):
        given = self._credentials()
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._s3_port}",
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            region_name=given["AWS_DEFAULT_REGION"],
        )

    def _stop_postgres(self) -> None:
        if self._postgres is not None:
            self._postgres.send_signal(signal.SIGINT)  # "fast shutdown"
            self._postgres.wait(timeout=60)

    def _start_postgres(self) -> None:
        data, [programs] = self._folder / "postgres", _POSTGRES
        data.mkdir(mode=0o700)
        given = self._folder / "password"
        given.touch(mode=0o600)
        given.write_text(self.password)
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(data, user, user)
            shutil.chown(given, user, user)
        options = {"user": user, "cwd": self._folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        initialise = [programs / "initdb", "--pgdata", data, "--username", "mlflow", "--pwfile", given]
        subprocess.run([*initialise, "--auth", "scram-sha-256"], check=True, **options)
        run = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", self._postgres_port, "-k", data]
        self._postgres = subprocess.Popen(run, **options)
        create = ["createdb", "--host", "127.0.0.1", "--port", self._postgres_port, "--username", "mlflow", "mlflow"]
        as_mlflow = {"env": os.environ | {"PGPASSWORD": self.password}, "stderr": subprocess.DEVNULL}
        deadline = time.monotonic() + 60
        while subprocess.run(create, **as_mlflow).returncode:
            assert time.monotonic() < deadline, "PostgreSQL does not take a database"
            time.sleep(0.3)
