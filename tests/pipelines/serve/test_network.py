import asyncio

import numpy as np
import torch

from pipelines.serve.config import ServeConfig
from pipelines.serve.network import Network
from pipelines.serve.served_weights import find_weights_to_serve
from t3d_core.prediction.clip_scorer import ClipScorer


def test_views_of_several_requests_are_scored_together_with_the_bits_that_each_gets_alone(weights, monkeypatch):
    threads = torch.get_num_threads()
    config = ServeConfig(model=str(weights), batch_size=3)
    network = Network(find_weights_to_serve(config), config, threads)
    generator = np.random.default_rng(0)
    calls = [generator.integers(0, 256, (count, 1, 16, 32, 32, 3), np.uint8) for count in (2, 1, 3)]
    scorer = network._scorer
    alone = [scorer.score(call) for call in calls]
    batches = []
    score = ClipScorer.score_with_features

    def counted(self, clips):
        batches.append(len(clips))
        return score(self, clips)

    monkeypatch.setattr(ClipScorer, "score_with_features", counted)

    async def at_once():
        return await asyncio.gather(*(network.score(call) for call in calls))

    together = asyncio.run(at_once())
    assert batches == [3, 3]
    for mine, expected in zip(together, alone, strict=True):
        assert np.array_equal(mine.score_BK, expected)
