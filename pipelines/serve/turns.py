"""Who is next when all decoders are at work: the client with the fewest of them, and among its requests the first."""

import asyncio
from collections import Counter


class Turns:
    """A bounded number of turns; for one event loop.

    Args:
        count: turns that there are at once.
    """

    def __init__(self, count: int) -> None:
        self._num_free = count
        self._num_of_client: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    async def take(self, client: str) -> None:
        """Wait for a turn, which `give_back` ends."""
        self._waiting.append((client, turn := asyncio.get_running_loop().create_future()))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove((client, turn))
            else:
                self.give_back(client)
            raise

    def give_back(self, client: str) -> None:
        """End a turn."""
        self._num_free += 1
        self._num_of_client[client] -= 1
        if not self._num_of_client[client]:
            del self._num_of_client[client]
        self._hand_out()

    def _hand_out(self) -> None:
        waiting = [each for each in self._waiting if not each[1].done()]
        if self._num_free and waiting:
            client, turn = following = min(waiting, key=lambda each: self._num_of_client[each[0]])
            self._waiting.remove(following)
            self._num_free -= 1
            self._num_of_client[client] += 1
            turn.set_result(None)
