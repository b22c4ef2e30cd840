"""A process that takes requests: it listens, decodes videos in guarded children, and asks a replica of the network.

client -- HTTP --> front: upload, decode -- views, in Ray's shared memory --> network
                                         <------------- scores -------------
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client.metrics_core import Metric
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from pipelines.predict.explained_clip import ExplainedPixels
from pipelines.serve.admission import Admission, closing
from pipelines.serve.answering import Answering
from pipelines.serve.config import ServeConfig
from pipelines.serve.desk import Desk
from pipelines.serve.kept import Kept
from pipelines.serve.listener import Listener
from pipelines.serve.metrics import Metrics, metrics_page
from pipelines.serve.refusal import Refusal
from pipelines.serve.served_weights import ServedWeights
from pipelines.serve.watched_decoder import Watch
from pipelines.serve.web import Web
from t3d_core.errors import UserError
from t3d_core.prediction.clip_scorer import ScoredViews
from t3d_core.video.clip_reader import ViewSampling

_READY_SECONDS = 5.0
_CONNECTIONS_PER_REQUEST = 4
_METRICS_SECONDS = 5.0
_RETRY_SECONDS = 1.0


class Front:
    """A replica that takes requests.

    Args:
        weights: of the network.
        config: settings.
        digest: SHA-256 of the token, if one is needed.
        network: the replicas of the network.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self, weights: ServedWeights, config: ServeConfig, digest: str | None, network: DeploymentHandle
    ) -> None:
        card = weights.card
        self._network, self._batch_size = network, max(1, config.batch_size // card.num_segments)
        self._admission = Admission(config.limits)
        self._metrics = Metrics(num_open=lambda: self._admission.num_open, num_waiting=lambda: self._desk.num_waiting)
        sampling = ViewSampling(card.clip_view(), config.num_clips, None, config.num_crops)
        self._desk = Desk(
            config,
            Answering(config, card.class_names, sampling),
            self._metrics,
            scorer_of=lambda watch: _RemoteScorer(network, watch, self._admission, self._batch_size),
            explain_of=lambda watch: _RemoteExplain(network, watch, self._admission),
        )
        web = Web(
            config,
            config.model or str(weights.path),
            card.class_names,
            digest,
            self._desk,
            self._admission,
            self._metrics,
            check_ready=Kept(self._check_ready),
            metrics_page=Kept(self._metrics_page),
        )
        of_client = config.limits.open_requests_per_client
        self._listener = Listener(
            web.app(),
            host=config.host,
            port=config.port,
            is_shared=config.decode_replicas > 1,
            max_of_client=of_client and of_client * _CONNECTIONS_PER_REQUEST,
        )

    def check_health(self) -> None:
        """Serve calls this, and starts another process if it fails."""
        if not self._admission.is_closing and not self._listener.is_alive():
            raise RuntimeError("the listener has ended")

    async def measured(self) -> tuple[str, list[Metric]]:
        """The name of this replica, and its counts."""
        return serve.get_replica_context().replica_id.unique_id, self._metrics.measured()

    async def drain(self) -> None:
        """Take no more requests, and give those that are open some seconds, while the network still answers."""
        self._admission.is_closing = True
        await asyncio.to_thread(self._listener.close)

    def __del__(self) -> None:
        """Serve calls this at the end, on Kubernetes without `drain`."""
        if not hasattr(self, "_listener"):  # it has never listened
            return
        self._admission.is_closing = True
        self._listener.close()
        self._desk.close()

    async def _check_ready(self) -> None:
        try:
            await asyncio.wait_for(
                asyncio.to_thread(_result, self._network.ready.remote, _READY_SECONDS), 2 * _READY_SECONDS
            )
        except (TimeoutError, RayError, RayServeException) as error:
            raise Refusal(503, "no replica of the network answers yet", is_passing=True) from error

    async def _metrics_page(self) -> bytes:
        context = serve.get_replica_context()
        fronts = serve.get_deployment_handle(context.deployment, context.app_name)
        measured = await asyncio.to_thread(
            lambda: fronts.broadcast("measured").results(timeout_s=_METRICS_SECONDS, return_exceptions=True)
        )
        return metrics_page(dict(each for each in measured if not isinstance(each, Exception)))


class _RemoteScorer:
    """Scores the views of one request in a replica of the network; a `ViewScorer`."""

    def __init__(self, network: DeploymentHandle, watch: Watch, admission: Admission, num_views: int) -> None:
        self._network, self._watch, self._admission, self.num_views = network, watch, admission, num_views

    def score_with_features(self, clip_BSTHWC: npt.NDArray[np.uint8]) -> ScoredViews:
        """As `ClipScorer.score_with_features`, for up to `num_views` views."""
        return _patiently(lambda: self._network.score.remote(clip_BSTHWC), self._watch, self._admission)


class _RemoteExplain:
    def __init__(self, network: DeploymentHandle, watch: Watch, admission: Admission) -> None:
        self._network, self._watch, self._admission = network, watch, admission

    def __call__(self, clip_THWC: npt.NDArray[np.uint8], label: int) -> ExplainedPixels:
        return _patiently(lambda: self._network.explain.remote(clip_THWC, label), self._watch, self._admission)


def _result(call: Callable[[], Any], seconds: float) -> Any:
    response = call()
    try:
        return response.result(timeout_s=seconds)
    except TimeoutError:
        response.cancel()  # what waits there is not scored any more
        raise


def _patiently(call: Callable[[], Any], watch: Watch, admission: Admission) -> Any:
    """Ask a replica of the network, and another one, or the same anew, if it ends meanwhile: nothing is lost.

    Raises:
        Refusal: 504, the time of the request is over; 503, the network has ended because the server does.
        UserError: of the network.
    """
    while True:
        try:
            return _result(call, watch.remaining_seconds())
        except TimeoutError:
            raise watch.too_late() from None
        except RayTaskError as error:  # the network's own: it would be raised again
            raise (error.cause if isinstance(error.cause, UserError) else error) from None
        except (RayError, RayServeException):
            if admission.is_closing:
                raise closing() from None
            time.sleep(min(_RETRY_SECONDS, watch.remaining_seconds()))
