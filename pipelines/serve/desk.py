"""Where videos are worked on: a bounded number at once, each with a decoder, and no client before others (`turns`).

The others wait. A client that leaves takes its video with it, and a request that takes too long ends.
"""

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any

from starlette.requests import Request

from pipelines.prepare.local_copies import LocalFile
from pipelines.prepare.shard_task import limits_of
from pipelines.serve.answering import Answer, Answering, Explain, Question
from pipelines.serve.config import ServeConfig
from pipelines.serve.metrics import Metrics
from pipelines.serve.refusal import Refusal
from pipelines.serve.turns import Turns
from pipelines.serve.watched_decoder import Watch, WatchedDecoder
from t3d_core.prediction.video_prediction import ViewScorer
from t3d_core.video.guard import GuardedDecoder

Opener = Callable[[], AbstractContextManager[LocalFile]]


class Desk:
    """Answers questions about videos, in threads.

    Args:
        config: settings.
        answering: what is answered.
        metrics: counts the views.
        scorer_of: a scorer that knows until when its request waits.
        explain_of: the same for explanations.
    """

    def __init__(
        self,
        config: ServeConfig,
        answering: Answering,
        metrics: Metrics,
        *,
        scorer_of: Callable[[Watch], ViewScorer],
        explain_of: Callable[[Watch], Explain],
    ) -> None:
        self._limits, self._answering, self._metrics = config.limits, answering, metrics
        self._scorer_of, self._explain_of = scorer_of, explain_of
        self._threads = ThreadPoolExecutor(config.decoders, thread_name_prefix="video")
        self._decoders: queue.SimpleQueue[GuardedDecoder] = queue.SimpleQueue()
        for _ in range(config.decoders):
            self._decoders.put(GuardedDecoder(limits_of(config.guard)))
        self._waiting: set[Watch] = set()
        self._turns = Turns(config.decoders)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a decoder."""
        return len(self._waiting)

    async def answer(self, opener: Opener, question: Question, request: Request) -> Answer:
        """Answer one question, for as long as its client waits.

        Args:
            opener: gives the file, in the thread that works on it.
            question: what is wanted.
            request: its body has been read.

        Raises:
            Refusal: 499 if the client has left, 504 if it takes too long.
            Exception: as `Answering.answer`, and what the opener raises.
        """
        watch = Watch(seconds=self._limits.answer_seconds)
        self._waiting.add(watch)
        client = request.client.host if request.client else ""
        work = asyncio.ensure_future(self._in_turn(client, opener, question, watch))
        leaving = asyncio.ensure_future(_leaving(request))
        ends: list[asyncio.Future[Any]] = [work, leaving]
        try:
            await asyncio.wait(ends, timeout=watch.remaining_seconds(), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise Refusal(499, "the client has left") if leaving.done() else watch.too_late()
        finally:
            watch.stop()
            work.cancel()
            leaving.cancel()
            self._waiting.discard(watch)

    async def _in_turn(self, client: str, opener: Opener, question: Question, watch: Watch) -> Answer:
        loop = asyncio.get_running_loop()
        await self._turns.take(client)
        thread = self._threads.submit(self._work, opener, question, watch)

        def give_back(_: Future[Answer]) -> None:
            with suppress(RuntimeError):  # the loop has ended, and the server with it
                loop.call_soon_threadsafe(self._turns.give_back, client)

        thread.add_done_callback(give_back)  # a request that is over has its turn until the thread notices
        return await asyncio.wrap_future(thread)

    def close(self) -> None:
        """End all work and the decoders."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while not self._decoders.empty():
            self._decoders.get().close()

    def _work(self, opener: Opener, question: Question, watch: Watch) -> Answer:
        self._waiting.discard(watch)
        watch.remaining_seconds()
        decoder = self._decoders.get()
        watched = WatchedDecoder(decoder, watch, max_seconds=self._limits.seconds)
        try:
            with opener() as file:
                return self._answering.answer(
                    file.path,
                    question,
                    scorer=self._scorer_of(watch),
                    explain=self._explain_of(watch),
                    decoder=watched,
                )
        finally:
            watched.close()
            self._metrics.views.inc(watched.num_views)
            self._decoders.put(decoder)


async def _leaving(request: Request) -> None:
    """Wait until the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
