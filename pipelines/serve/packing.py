"""The views of all calls that wait fill the batches of a network, the oldest call first.

    call A   1 2 3 4 5 6 7
    call B   1 2 3 4 5 6 7         batches of 8:   A1 ... A7 B1 | B2 ... B7 C1 C2
    call C   1 2

A call is answered when its last view is scored. Ray Serve's own batching keeps calls whole: with calls of seven views,
an eighth of a batch of eight would be blank.

Legend: B views of a call, S segments, T frames, H x W pixels, C colours.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import numpy.typing as npt

from t3d_core.prediction.clip_scorer import ScoredViews

Clips = npt.NDArray[np.uint8]


class _Call:
    """Views that wait, and where their scores go."""

    def __init__(self, clip_BSTHWC: Clips) -> None:
        self.answer: asyncio.Future[ScoredViews] = asyncio.get_running_loop().create_future()
        self._waiting_BSTHWC = clip_BSTHWC
        self._num_unscored = len(clip_BSTHWC)
        self._scored: list[ScoredViews] = []

    def take(self, count: int) -> Clips:
        """Take the next views, up to `count`."""
        taken, self._waiting_BSTHWC = self._waiting_BSTHWC[:count], self._waiting_BSTHWC[count:]
        return taken

    def is_over(self) -> bool:
        """Whether nothing is left to score: all views are taken, or the caller has left or got an error."""
        return not len(self._waiting_BSTHWC) or self.answer.done()

    def add(self, scored: ScoredViews) -> None:
        """Add the scores of the views that were taken first."""
        self._scored.append(scored)
        self._num_unscored -= len(scored.score_BK)
        if self._num_unscored == 0 and not self.answer.done():
            self.answer.set_result(ScoredViews(*map(np.concatenate, zip(*self._scored, strict=True))))

    def fail(self, error: Exception) -> None:
        """Raise an error where the call waits."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Packing:
    """Packs the views of calls into batches; for one event loop.

    Args:
        score: scores clip_BSTHWC, uint8, of 1 to `num_views` views.
        num_views: views of a batch.
    """

    def __init__(self, score: Callable[[Clips], Awaitable[ScoredViews]], *, num_views: int) -> None:
        self._score, self._num_views = score, num_views
        self._waiting: deque[_Call] = deque()
        self._working: asyncio.Task[None] | None = None

    async def score(self, clip_BSTHWC: Clips) -> ScoredViews:
        """Score the views of one call, clip_BSTHWC, uint8, at least one, together with those of others.

        Raises:
            Exception: of `score`.
        """
        assert len(clip_BSTHWC), "a call has at least one view"
        self._waiting.append(call := _Call(clip_BSTHWC))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await call.answer

    async def _work(self) -> None:
        try:
            while batch := self._next_batch():
                await self._score_batch(batch)
        finally:
            self._working = None

    def _next_batch(self) -> list[tuple[_Call, Clips]]:
        batch: list[tuple[_Call, Clips]] = []
        room = self._num_views
        while room and self._waiting:
            call = self._waiting[0]
            if not call.is_over():
                batch.append((call, call.take(room)))
                room -= len(batch[-1][1])
            if call.is_over():
                self._waiting.popleft()
        return batch

    async def _score_batch(self, batch: Sequence[tuple[_Call, Clips]]) -> None:
        calls, clips = zip(*batch, strict=True)
        ends = np.cumsum([len(each) for each in clips])[:-1]
        try:
            scored = await self._score(np.concatenate(clips))
            assert len(scored.score_BK) == sum(map(len, clips)), "every view has its scores"
            for call, *parts in zip(calls, *(np.split(each, ends) for each in scored), strict=True):
                call.add(ScoredViews(*parts))
        except Exception as error:  # each caller gets it
            for call in calls:
                call.fail(error)
