"""The HTTP side of a server: routes, who is let in, and every error as `{"reason": "..."}`.

POST /predict   a video, or {"address": "..."}; query: top, explain
GET  /          the page          GET /model     classes and limits
GET  /healthz   200 or 503        GET /metrics   for Prometheus
"""

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipelines.prepare.sources import MissingVideoError
from pipelines.serve.access import check_access, check_host, is_loopback
from pipelines.serve.addresses import address_in, check_address, open_address
from pipelines.serve.admission import Admission, closing
from pipelines.serve.answering import Answer, Question
from pipelines.serve.config import ServeConfig
from pipelines.serve.desk import Desk
from pipelines.serve.metrics import Metrics
from pipelines.serve.refusal import Refusal
from pipelines.serve.upload import read_small_body, uploaded_file
from t3d_core.errors import UserError
from t3d_core.video.container import VideoError
from t3d_core.video.guard import DecoderKilledError

PAGE = Path(__file__).with_name("page.html")
_PAGE_HEADERS = {
    # The page needs nothing from elsewhere, and nothing else may run in it.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Endpoint = Callable[[Request], Awaitable[Response]]
_MAX_TOP = 1000
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Web:
    """Answers requests.

    Attributes:
        config: settings.
        model: name of the network.
        class_names: by label.
        digest: SHA-256 of the token, if one is needed.
        desk: where videos are worked on.
        admission: of this process.
        metrics: of this process.
        check_ready: raises where no replica of the network answers.
        metrics_page: of all processes.
        page: the file of the page.
    """

    config: ServeConfig
    model: str
    class_names: tuple[str, ...]
    digest: str | None
    desk: Desk
    admission: Admission
    metrics: Metrics
    check_ready: Callable[[], Awaitable[None]]
    metrics_page: Callable[[], Awaitable[bytes]]
    page: Path = PAGE

    def app(self) -> Starlette:
        """The ASGI app."""
        return Starlette(
            routes=[
                Route("/predict", self._predict, methods=["POST"]),
                Route("/", self._to_this_host(self._page)),
                Route("/model", self._to_this_host(self._model)),
                Route("/healthz", self._healthz),
                Route("/-/healthz", self._healthz),  # where KubeRay looks
                Route("/metrics", self._to_this_host(self._metrics)),
            ],
            exception_handlers={HTTPException: _answer_unknown},  # type: ignore[dict-item] # narrower than theirs
        )

    def _to_this_host(self, answer: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            try:
                check_host(request.headers, is_local=is_loopback(self.config.host))
            except Refusal as refusal:
                return _refused(refusal)
            return await answer(request)

        return checked

    async def _predict(self, request: Request) -> Response:
        start = time.monotonic()
        try:
            response: Response = JSONResponse(await self._answer(request))
        except Exception as error:
            response = _refused(_refusal_of(error))
        self.metrics.requests.labels(str(response.status_code)).inc()
        self.metrics.seconds.observe(time.monotonic() - start)
        return response

    async def _answer(self, request: Request) -> Answer:
        check_access(request.headers, digest=self.digest, is_local=is_loopback(self.config.host))
        question = _question_of(request)
        client = request.client.host if request.client else ""
        with self.admission.admit(client):
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                async with uploaded_file(request, self.config.limits) as file:
                    return await self.desk.answer(lambda: nullcontext(file), question, request)
            address = address_in(await read_small_body(request, self.config.limits))
            check_address(address, self.config)
            return await self.desk.answer(lambda: open_address(address, self.config), question, request)

    async def _page(self, request: Request) -> Response:
        return Response(self.page.read_bytes(), media_type="text/html", headers=_PAGE_HEADERS)

    async def _model(self, request: Request) -> Response:
        return JSONResponse(
            {
                "classes": self.class_names,
                "limits": {"mib": self.config.limits.mib, "seconds": self.config.limits.seconds},
                "needs_token": self.digest is not None,
                "reads_addresses": self.config.public_addresses or bool(self.config.allowed_addresses),
            }
        )

    async def _healthz(self, request: Request) -> Response:
        try:
            if self.admission.is_closing:
                raise closing()
            await self.check_ready()
        except Refusal as refusal:
            return _refused(refusal)
        return JSONResponse({"status": "success", "model": self.model})  # KubeRay looks for this word

    async def _metrics(self, request: Request) -> Response:
        return Response(await self.metrics_page(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _refused(refusal: Refusal) -> Response:
    return JSONResponse({"reason": str(refusal)}, refusal.status, refusal.headers)


def _question_of(request: Request) -> Question:
    top, explain = request.query_params.get("top", "5"), request.query_params.get("explain", "false").lower()
    if not (top.isascii() and top.isdecimal() and len(top) <= 9 and int(top) > 0):
        raise Refusal(400, f"top {top[:20]!r} must be a number of classes, from 1 on")
    if explain not in _TRUE + _FALSE:
        raise Refusal(400, f"explain {explain[:20]!r} must be true or false")
    return Question(min(int(top), _MAX_TOP), explain in _TRUE)


async def _answer_unknown(request: Request, error: HTTPException) -> Response:
    known = "POST /predict, GET /, /model, /healthz, /metrics"
    return JSONResponse({"reason": f"{error.detail}: there are {known}"}, error.status_code, error.headers)


def _refusal_of(error: Exception) -> Refusal:
    """What the sender of a request is told; faults of the server go into its log."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, MissingVideoError):
        return Refusal(404, str(error))
    if isinstance(error, VideoError):
        return Refusal(422, str(error))
    if isinstance(error, DecoderKilledError):
        return Refusal(503, f"{error}: the server may be short of memory", is_passing=True)
    _LOG.error("a request failed", exc_info=error)
    if isinstance(error, UserError):
        return Refusal(500, str(error))
    return Refusal(500, f"the server failed ({type(error).__name__}); its log has more")
