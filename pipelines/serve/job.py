"""A trained network is served over HTTP until the job is interrupted; all that can be checked is checked before.

The job runs the application of `serve.app` on Ray: on this machine, or on the cluster that RAY_ADDRESS names.
"""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING

from pipelines.runtime import pools, session
from pipelines.runtime.shared_storage import check_shared
from pipelines.serve.access import TOKEN_VARIABLE, token_digest
from pipelines.serve.config import ServeConfig
from pipelines.serve.served_weights import ServedWeights, find_weights_to_serve
from pipelines.settings.terminal import format_summary, seen_from_here
from t3d_core.errors import UserError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_NAME = "t3d"
_DRAIN_SECONDS = 15
_NEEDED = ("ray.serve", "starlette", "uvicorn", "mmh3", "prometheus_client")


def run_serve(config: ServeConfig) -> str:
    """Serve until Ctrl-C or SIGTERM; return the closing summary.

    Raises:
        UserError: something is missing or cannot work, before anything listens; the message names the cure.
    """
    check_installed()
    digest = token_digest(host=config.host, without_token=config.without_token)
    weights = find_weights_to_serve(config)
    is_cluster = os.environ.get("RAY_ADDRESS", "local") != "local"
    if not is_cluster:
        _check_port(config)
    _connect(config, weights, is_cluster=is_cluster)
    # Ray has taken SIGTERM over, and a shell that starts a job in the background switches Ctrl-C off.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.default_int_handler)
    with serving(weights, config, digest):
        print(seen_from_here(_describe(weights, config, digest, is_cluster=is_cluster)), flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
        print("stopping: open requests get some seconds", flush=True)
    return format_summary([("served", str(weights.path)), ("stopped", "by a signal")])


def check_installed() -> None:
    """Check that the extra packages of the server are there.

    Raises:
        UserError: some are not.
    """
    try:
        for name in _NEEDED:
            import_module(name)
    except ImportError as error:
        raise UserError(f"the server lacks a package ({error.name}): run `pip install -e '.[serve]'`") from error


def _check_port(config: ServeConfig) -> None:
    from pipelines.serve.listener import bound_socket

    try:
        bound_socket(config.host, config.port, is_shared=False).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"the server cannot listen on {config.host}:{config.port} ({reason}): give another --port or --host"
        ) from error


def _connect(config: ServeConfig, weights: ServedWeights, *, is_cluster: bool) -> None:
    from pipelines.serve.app import num_cpus_of

    session.connect(num_cpus=num_cpus_of(config))
    if is_cluster:
        each = {"CPU": float(config.cpus_per_replica or 1), "GPU": float(config.use_gpu)}
        pools.check_workers_fit(config.num_replicas, each)
        check_shared(read=[weights.path.parent])
    elif config.use_gpu:
        pools.check_workers_fit(config.num_replicas, {"GPU": 1.0})


@contextmanager
def serving(weights: ServedWeights, config: ServeConfig, digest: str | None) -> Iterator[None]:
    """Run the application on the Ray that this process is connected to; at the end, it and Serve are gone.

    Raises:
        UserError: Ray serves something already, or a replica does not start.
    """
    from ray import serve

    from pipelines.serve.app import application

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if serve.status().applications:
        raise UserError("this Ray cluster serves an application already: end it (`serve shutdown`), or use another one")
    try:
        serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING", "enable_access_log": False})
        fronts = serve.run(application(weights, config, digest), name=_NAME, route_prefix=None)
        try:
            yield
        finally:
            _drain(fronts)
    except RuntimeError as error:
        raise UserError(f"the server does not start: {' '.join(str(error).split())}") from error
    finally:
        serve.shutdown()


def _drain(fronts: "DeploymentHandle") -> None:
    """Let open requests end; `serve.shutdown` alone ends the network under them."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    with suppress(TimeoutError, RayError, RayServeException):
        fronts.broadcast("drain").results(timeout_s=_DRAIN_SECONDS, return_exceptions=True)


def _describe(weights: ServedWeights, config: ServeConfig, digest: str | None, *, is_cluster: bool) -> str:
    host = socket.gethostname() if config.host in ("0.0.0.0", "::") else config.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{config.port}"
    token = f'-H "Authorization: Bearer ${TOKEN_VARIABLE}" ' if digest else ""
    lines = [
        f"serving {weights.path} ({len(weights.card.class_names)} classes) at {url}",
        f"  curl {token}--data-binary @clip.mp4 {url}/predict",
        "  Ctrl-C ends it",
    ]
    if is_cluster:
        lines.insert(1, "  on each node of the cluster that decodes")
    return "\n".join(lines)
