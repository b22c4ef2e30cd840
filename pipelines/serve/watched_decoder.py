"""A guarded decoder for one request: it stops a video that is too long, and one that nobody waits for any more."""

import os
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing

from pipelines.serve.refusal import Refusal
from t3d_core.video.clip_reader import VideoView, ViewSampling
from t3d_core.video.guard import GuardedDecoder


class StoppedError(Exception):
    """Nobody waits for the answer."""


class Watch:
    """Until when an answer is wanted; one thread works for it, another may stop it.

    Attributes:
        deadline: of `time.monotonic`.
    """

    def __init__(self, *, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the work at its next step."""
        self._stopped.set()

    def remaining_seconds(self) -> float:
        """Time that is left.

        Raises:
            StoppedError: nobody waits any more.
            Refusal: 504, there is none left.
        """
        if self._stopped.is_set():
            raise StoppedError
        if (remaining := self.deadline - time.monotonic()) <= 0:
            raise self.too_late()
        return remaining

    def too_late(self) -> Refusal:
        """The answer to a request whose time is over."""
        return Refusal(504, f"no answer within {self._seconds:g} s: send a shorter video, or try again later")


class WatchedDecoder:
    """Reads the views of one request's video; a `ViewReader`.

    Args:
        decoder: borrowed for the request.
        watch: of the request.
        max_seconds: length of a video.
    """

    def __init__(self, decoder: GuardedDecoder, watch: Watch, *, max_seconds: float) -> None:
        self._decoder, self._watch, self._max_seconds = decoder, watch, max_seconds
        self._open: list[Generator[VideoView]] = []
        self.num_views = 0

    def check_length(self, path: str | os.PathLike[str]) -> None:
        """Refuse a video whose header states too great a length, before any frame is decoded.

        Raises:
            VideoError: the file is no video.
            Refusal: 422, it is too long.
        """
        seconds = self._decoder.stated_seconds(path)
        if seconds is not None and seconds > self._max_seconds:
            raise self._too_long()

    def read_views(self, path: str | os.PathLike[str], sampling: ViewSampling) -> Iterator[VideoView]:
        """As `GuardedDecoder.read_views`, and errors of `Watch`.

        Raises:
            Refusal: 422 where the video turns out to be too long.
        """
        views = self._watched(path, sampling)
        self._open.append(views)
        return views

    def _watched(self, path: str | os.PathLike[str], sampling: ViewSampling) -> Generator[VideoView]:
        start_seconds = None
        with closing(self._decoder.read_views(path, sampling)) as views:  # type: ignore[type-var] # it is a generator
            for view in views:
                self._watch.remaining_seconds()
                start_seconds = view.start_seconds if start_seconds is None else start_seconds
                # A header may lie, and not every file has one.
                if view.end_seconds - start_seconds > self._max_seconds + 1:
                    raise self._too_long()
                self.num_views += 1
                yield view

    def close(self) -> None:
        """End what was not read to its end, so that the next request finds a decoder at rest."""
        for views in self._open:
            views.close()

    def _too_long(self) -> Refusal:
        return Refusal(422, f"the video is longer than {self._max_seconds:g} s")
