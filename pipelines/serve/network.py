"""A process that holds the network: views of any requests come in, are scored in full batches, and scores go back.

`ClipScorer` gives a view the same bits whatever it is scored with. So a request gets the scores that it would get
alone, and those of `predict`.

Legend: B views of a call, S segments, T frames, H x W pixels, C colours.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from pipelines.networks.scorer import make_scorer
from pipelines.predict.explained_clip import ExplainedPixels, explain_pixels
from pipelines.serve.config import ServeConfig
from pipelines.serve.packing import Clips, Packing
from pipelines.serve.served_weights import ServedWeights
from t3d_core.errors import UserError
from t3d_core.prediction.clip_scorer import ScoredViews

ResultT = TypeVar("ResultT")


class Network:
    """A replica of the network.

    Args:
        weights: what it loads.
        config: settings.
        num_threads: of PyTorch. The last bits of scores on a CPU depend on it.

    Raises:
        UserError: the weights are not those that the server was started with, or give scores that are not finite.
    """

    def __init__(self, weights: ServedWeights, config: ServeConfig, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        loaded = weights.load()
        if config.compute.transition_forms is not None:
            loaded.model.set_transition_forms(config.compute.transition_forms)
        self._card, self._net = loaded.card, loaded.model
        self._scorer = make_scorer(loaded, compute=config.compute, batch_size=config.batch_size, use_gpu=config.use_gpu)
        self._check_finite()
        self._thread = ThreadPoolExecutor(1)
        self._packing = Packing(self._score, num_views=self._scorer.num_views)

    def _check_finite(self) -> None:
        """Score a blank view, which also brings the network to its speed."""
        size = (1, self._card.num_segments, self._card.num_frames, self._card.crop_size, self._card.crop_size, 3)
        if not np.isfinite(self._scorer.score(np.zeros(size, np.uint8))).all():
            raise UserError("the network gives scores that are not finite (NaN): its weights are damaged")

    async def score(self, clip_BSTHWC: Clips) -> ScoredViews:
        """Score the views of one call, together with those of others."""
        return await self._packing.score(clip_BSTHWC)

    async def _score(self, clip_BSTHWC: Clips) -> ScoredViews:
        return await self._in_thread(lambda: self._scorer.score_with_features(clip_BSTHWC))

    async def explain(self, clip_THWC: Clips, label: int) -> ExplainedPixels:
        """Explain what in a clip speaks for a class."""
        pixels = np.array(clip_THWC)  # what Ray hands over cannot be written to, of which PyTorch warns
        return await self._in_thread(
            lambda: explain_pixels(pixels, label, net=self._net, device=self._scorer.device, card=self._card)
        )

    async def ready(self) -> None:
        """Return at once, where there is a replica."""

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        """One thing at a time, outside of the loop that takes calls."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
