"""What everyone may ask for and is dear is asked once a second, however many want it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_KEPT_SECONDS = 1.0

ResultT = TypeVar("ResultT")


class Kept(Generic[ResultT]):
    """Calls a function, and gives what it returned or raised to all who ask meanwhile or within a second; for one loop.

    Args:
        call: the function.
    """

    def __init__(self, call: Callable[[], Awaitable[ResultT]]) -> None:
        self._call = call
        self._task: asyncio.Future[ResultT] | None = None
        self._until = 0.0

    async def __call__(self) -> ResultT:
        """What the function returned.

        Raises:
            Exception: that it raised.
        """
        if self._task is None or (self._task.done() and time.monotonic() > self._until):
            self._task = asyncio.ensure_future(self._called())
        return await asyncio.shield(self._task)

    async def _called(self) -> ResultT:
        try:
            return await self._call()
        finally:
            self._until = time.monotonic() + _KEPT_SECONDS
