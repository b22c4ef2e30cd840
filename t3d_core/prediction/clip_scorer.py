"""A loaded network and uint8 clips go in, scores and features come out: the same bits however clips are put together.

The last bits of a convolution on a CPU depend on how many clips it gets at once, and those of a matrix product on the
place of a row. Every call of the network therefore has the same number of views, with blank ones where there are
fewer, and views are classified one by one. So a video has one score, whether it is scored alone, among others, or by
another stage (paper 4.4, Testing).

Legend: B views of a batch, S segments, T frames, H x W pixels, C channels, K classes, D feature dimensions.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from t3d_core.models.execution import Execution
from t3d_core.models.folding import fold_batch_norms
from t3d_core.training.checkpoint import LoadedModel
from t3d_core.video.transforms import normalize_clip


class ScoredViews(NamedTuple):
    """What the network gives for views.

    Attributes:
        score_BK: float32 softmax scores; K is 0 for a network without classes.
        feature_BD: float32 features that the scores were computed from.
    """

    score_BK: npt.NDArray[np.float32]
    feature_BD: npt.NDArray[np.float32]


class ClipScorer:
    """The network, set up for testing.

    Args:
        loaded: A network and its card.
        device: Where it runs.
        batch_size: Clips that the network gets at once; for a network of segments, views of as many clips.
        execution: How it is run; by default in float32.
        fold_batch_norm: Fold batch norms into the convolutions before them.

    Attributes:
        card: Of the weights.
        device: As given.
        num_views: Views of a batch.
        notes: What was measured when the network was set up, a sentence each.

    Raises:
        UserError: `execution` cannot work here.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        device: torch.device,
        batch_size: int,
        execution: Execution | None = None,
        fold_batch_norm: bool = True,
    ) -> None:
        self.card = loaded.card
        self.num_views = max(1, batch_size // loaded.card.num_segments)
        self.device, self._execution = device, execution or Execution()
        self._net = (fold_batch_norms(loaded.model) if fold_batch_norm else loaded.model).to(device)
        measured = self._execution.prepare(
            self._net,
            num_frames=self.card.num_frames,
            size=self.card.crop_size,
            batch_size=self.num_views * self.card.num_segments,
            is_trained=False,
        )
        self.notes = tuple(map(str, measured))

    def score(self, clip_BSTHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Softmax scores (B, K) of any number of views.

        Raises:
            UserError: while debugging, clips or features are not finite.
        """
        return self.score_with_features(clip_BSTHWC).score_BK

    def score_with_features(self, clip_BSTHWC: npt.NDArray[np.uint8]) -> ScoredViews:
        """Scores and features of any number of views, from one forward pass; errors are those of `score`."""
        parts = [
            self._score_batch(clip_BSTHWC[first : first + self.num_views])
            for first in range(0, len(clip_BSTHWC), self.num_views)
        ]
        if not parts:
            num_classes, feature_dim = len(self.card.class_names), self._net.feature_dim
            return ScoredViews(np.empty((0, num_classes), np.float32), np.empty((0, feature_dim), np.float32))
        return ScoredViews(*map(np.concatenate, zip(*parts, strict=True)))

    @torch.inference_mode()
    def _score_batch(self, clip_BSTHWC: npt.NDArray[np.uint8]) -> ScoredViews:
        num_given = len(clip_BSTHWC)
        filled = np.zeros((self.num_views, *clip_BSTHWC.shape[1:]), np.uint8)
        filled[:num_given] = clip_BSTHWC
        clip_BTHWC = torch.from_numpy(filled).to(self.device).flatten(0, 1)
        clip_BCTHW = normalize_clip(clip_BTHWC, mean=self.card.mean, std=self.card.std)
        with self._execution.autocast(self.device):
            feature_BD = self._net.forward_views(clip_BCTHW)
            # Cloned, because the last bits also depend on where in memory a row begins.
            logits_BK = torch.cat([self._net.classify(feature_1D.clone()) for feature_1D in feature_BD.split(1)])
        score_BK = logits_BK.softmax(dim=1) if self.card.class_names else logits_BK[:, :0]
        return ScoredViews(*(each[:num_given].cpu().numpy() for each in (score_BK, feature_BD)))
