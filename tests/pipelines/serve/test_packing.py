"""Views of several calls share batches; each call gets its own scores, or the error, and who leaves costs nothing."""

import asyncio

import numpy as np
import pytest

from pipelines.serve.packing import Packing
from t3d_core.prediction.clip_scorer import ScoredViews


def views(*numbers):
    return np.array(numbers, np.uint8)[:, None]


class Network:
    """Gives every view its number as a score, and fails at 99; it waits at its first batch."""

    def __init__(self):
        self.batches, self.is_open = [], asyncio.Event()

    async def score(self, clips):
        self.batches.append(clips[:, 0].tolist())
        await self.is_open.wait()
        if 99 in clips:
            raise ValueError("a view of 99")
        return ScoredViews(clips.astype(np.float32), 2 * clips.astype(np.float32))


async def ask(*calls, leaving=None):
    """The batches that the network got, and what every call got."""
    network = Network()
    packing = Packing(network.score, num_views=4)
    asked = [asyncio.create_task(packing.score(call)) for call in calls]
    await asyncio.sleep(0.01)
    if leaving is not None:
        asked[leaving].cancel()
    network.is_open.set()
    answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), timeout=5)
    assert (await asyncio.wait_for(packing.score(views(50)), timeout=5)).score_BK.tolist() == [[50]]
    return network.batches[:-1], answers


def test_batches_are_full_and_every_call_gets_its_own_scores():
    calls = views(1, 2, 3), views(4, 5, 6), views(7), views(8, 9, 10, 11, 12, 13)
    batches, answers = asyncio.run(ask(*calls))
    assert batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13]]
    for call, answer in zip(calls, answers, strict=True):
        np.testing.assert_array_equal(answer.score_BK, call)
        np.testing.assert_array_equal(answer.feature_BD, 2 * call)


def test_an_error_reaches_the_calls_of_its_batch_and_no_other():
    batches, answers = asyncio.run(ask(views(1, 2, 3), views(99, 5, 6, 7, 8), views(9)))
    assert batches == [[1, 2, 3, 99], [9]]
    assert [type(answer) for answer in answers] == [ValueError, ValueError, ScoredViews]


def test_the_views_of_a_caller_who_has_left_are_not_scored():
    batches, answers = asyncio.run(ask(views(1, 2), views(3, 4, 5, 6, 7, 8), views(9), leaving=1))
    assert batches == [[1, 2, 3, 4], [9]]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert answers[2].score_BK.tolist() == [[9.0]]


@pytest.mark.parametrize(("other", "answer"), [(3, ScoredViews), (99, ValueError)])
def test_whoever_leaves_while_a_batch_is_scored_harms_no_other(other, answer):
    batches, answers = asyncio.run(ask(views(1, 2), views(other), leaving=0))
    assert batches == [[1, 2, other]]
    assert [type(each) for each in answers] == [asyncio.CancelledError, answer]


def test_scores_that_are_too_few_are_an_error_of_the_call_and_no_endless_wait():
    async def too_few(clips):
        return ScoredViews(clips[:1], clips[:1])

    async def asked():
        return await asyncio.wait_for(Packing(too_few, num_views=4).score(views(1, 2)), timeout=5)

    with pytest.raises(AssertionError, match="every view has its scores"):
        asyncio.run(asked())


def test_calls_that_come_later_are_scored_too():
    async def one_after_the_other():
        network = Network()
        network.is_open.set()
        packing = Packing(network.score, num_views=4)
        return [(await packing.score(views(number))).score_BK[0, 0] for number in (1, 2)]

    assert asyncio.run(one_after_the_other()) == [1, 2]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_single_call_of_any_size_is_scored(count):
    batches, [answer] = asyncio.run(ask(views(*range(count))))
    assert [len(batch) for batch in batches] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert answer.score_BK[:, 0].tolist() == list(range(count))
