import asyncio

import pytest

from pipelines.serve import kept
from pipelines.serve.kept import Kept


def test_one_call_serves_all_who_ask_meanwhile_and_soon_after(monkeypatch):
    calls = []

    async def call():
        calls.append(len(calls))
        await asyncio.sleep(0.01)
        if calls[-1]:
            raise KeyError
        return "first"

    async def run():
        asked = Kept(call)
        leaving = asyncio.ensure_future(asked())
        await asyncio.sleep(0)
        leaving.cancel()  # of which the others hear nothing
        assert await asyncio.gather(*(asked() for _ in range(9))) == ["first"] * 9
        assert await asked() == "first"
        assert calls == [0]
        monkeypatch.setattr(kept, "_KEPT_SECONDS", -1.0)
        asked._until = 0.0
        for _ in range(2):
            with pytest.raises(KeyError):
                await asked()
        assert calls == [0, 1, 2]

    asyncio.run(run())
