"""Requests come in, only so many at once are admitted, all together and for each client: the others hear it at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.serve.config import LimitsConfig
from pipelines.serve.refusal import Refusal


class Admission:
    """Counts open requests; for one thread.

    Attributes:
        num_open: requests that are uploading, waiting or at work.
        is_closing: nothing new is admitted.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._num_of_client: Counter[str] = Counter()
        self.num_open = 0
        self.is_closing = False

    @contextmanager
    def admit(self, client: str) -> Iterator[None]:
        """Hold a place until the end of the block.

        Raises:
            Refusal: the server is closing, this client has too many open requests, or all places are taken.
        """
        of_client = self._limits.open_requests_per_client
        if self.is_closing:
            raise closing()
        if of_client is not None and self._num_of_client[client] >= of_client:
            raise Refusal(429, f"this client already has {of_client} open requests: wait for one", is_passing=True)
        if self.num_open >= self._limits.open_requests:
            reason = f"the server is busy: {self.num_open} requests are open, as many as it takes"
            raise Refusal(503, reason, is_passing=True)
        self.num_open += 1
        self._num_of_client[client] += 1
        try:
            yield
        finally:
            self.num_open -= 1
            self._num_of_client[client] -= 1
            if not self._num_of_client[client]:
                del self._num_of_client[client]


def closing() -> Refusal:
    """The answer of a server that ends."""
    return Refusal(503, "the server is shutting down", is_passing=True)
