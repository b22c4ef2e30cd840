import asyncio

import pytest

from pipelines.serve.turns import Turns


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_client_with_the_fewest_turns_is_next_and_its_first_request():
    async def run():
        turns, order = Turns(2), []

        async def ask(client, name):
            await turns.take(client)
            order.append(name)

        tasks = []
        for client, name in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("a", "a4"), ("b", "b1"), ("b", "b2")):
            tasks.append(asyncio.ensure_future(ask(client, name)))
            await settle()
        assert order == ["a1", "a2"]
        for client, expected in (("a", "b1"), ("a", "a3"), ("b", "b2"), ("a", "a4")):
            turns.give_back(client)
            await settle()
            assert order[-1] == expected
        await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize("is_given", [False, True])
def test_who_leaves_takes_no_turn_with_him(is_given):
    async def run():
        turns = Turns(1)
        await turns.take("a")
        leaving = asyncio.ensure_future(turns.take("b"))
        await settle()
        if is_given:  # at the moment at which its turn comes
            turns.give_back("a")
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        if not is_given:
            turns.give_back("a")
        await asyncio.wait_for(turns.take("c"), 5)

    asyncio.run(run())
