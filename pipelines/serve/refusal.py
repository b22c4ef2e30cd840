"""Every request that gets no prediction gets one reason: an HTTP status and a sentence for its sender."""

import errno

RETRY_SECONDS = 5
"""When a client that came at a bad moment may try again."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of the server
    """An answer other than a prediction; the message is the reason.

    Attributes:
        status: HTTP status, 4xx or 5xx.
        is_passing: the same request may succeed soon.
    """

    def __init__(self, status: int, reason: str, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.status, self.is_passing = status, is_passing

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return {"Retry-After": str(RETRY_SECONDS)} if self.is_passing else {}


def raise_if_disk_is_full(error: OSError) -> None:
    """Tell the sender so, if that is what failed.

    Raises:
        Refusal: 507, the disk of the server is full.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise Refusal(507, "the server has no room for the video", is_passing=True) from error
