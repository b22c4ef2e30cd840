"""Settings become an application of Ray Serve: processes that take requests, and processes that hold the network.

`jobs/serve.py` runs it, and so does a RayService of Kubernetes, whose `import_path` is `pipelines.serve.app:build`.
"""

import ray
import torch
from ray import serve
from ray.serve import Application

from pipelines.runtime import pools
from pipelines.serve.access import token_digest
from pipelines.serve.config import ServeConfig
from pipelines.serve.front import Front
from pipelines.serve.network import Network
from pipelines.serve.served_weights import ServedWeights, find_weights_to_serve

_GRACE_SECONDS = 15
_MAX_CALLS = 1000
_HEALTH_SECONDS = 10
_QUIET = {"log_level": "WARNING", "enable_access_log": False}


def build(config: ServeConfig) -> Application:
    """Build the application.

    Raises:
        UserError: the weights cannot be served, or a token is missing.
    """
    digest = token_digest(host=config.host, without_token=config.without_token)
    return application(find_weights_to_serve(config), config, digest)


def application(weights: ServedWeights, config: ServeConfig, digest: str | None) -> Application:
    """Build the application of checked weights.

    Args:
        weights: what it serves.
        config: settings.
        digest: SHA-256 of the token, if one is needed.
    """
    network = serve.deployment(
        name="network",
        num_replicas=config.num_replicas,
        max_ongoing_requests=_MAX_CALLS,
        ray_actor_options={
            "num_cpus": config.cpus_per_replica or 1,
            "num_gpus": 1 if config.use_gpu else 0,
            **_placed("train"),
        },
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_timeout_s=_GRACE_SECONDS,
        logging_config=_QUIET,
    )(Network)
    front = serve.deployment(
        name="front",
        num_replicas=config.decode_replicas,
        ray_actor_options={"num_cpus": config.decoders, **_placed("decode")},
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_timeout_s=_GRACE_SECONDS,
        logging_config=_QUIET,
    )(Front)
    return front.bind(weights, config, digest, network.bind(weights, config, _num_threads(config)))


def num_cpus_of(config: ServeConfig) -> int:
    """CPUs that the application reserves."""
    return config.num_replicas * (config.cpus_per_replica or 1) + config.decode_replicas * config.decoders


def _num_threads(config: ServeConfig) -> int:
    """By default as many as `predict` would use in this process: then scores are the same to the last bit."""
    return config.cpus_per_replica or max(1, torch.get_num_threads() // config.num_replicas)


def _placed(pool: pools.Pool) -> dict[str, dict[str, str]]:
    labels = pools.selector(pool) if ray.is_initialized() else {}
    return {"label_selector": labels} if labels else {}
