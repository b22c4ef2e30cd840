"""A clip's embedding is compared with the keys of training clips: which is its own, or how near is it?

A key is the whitened target of a frozen teacher (`whitening`), so the bank never ages: every clip of a micro-batch of 8
still sees thousands of exact negatives. Paper: not in it; its negatives are the other frames of a batch (3.2).

Legend: B clips of a batch, N keys of the bank, d width of a key.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Moments(NamedTuple):
    """When the clips of keys were: (N,) int64 each.

    Attributes:
        source_N: number of the source video.
        row_N: number of the row (a video, or a segment of one), the same wherever rows are counted.
        start_N: first frame in the row.
    """

    source_N: Tensor
    row_N: Tensor
    start_N: Tensor


class Comparison(NamedTuple):
    """Clips against the bank.

    Attributes:
        contrast_B: cross entropy of the own key among all, in nats.
        rank_B: share of the keys of other videos that are less like the embedding than its own key: 0.5 by chance.
        rank_in_video_B: the same share of the keys of other times of its own video.
        has_other_time_B: bool, whether the bank has such keys.
    """

    contrast_B: Tensor
    rank_B: Tensor
    rank_in_video_B: Tensor
    has_other_time_B: Tensor


class KeyBank(nn.Module):
    """Keys of training clips.

    Attributes:
        key_dim: d.
        variance: mean squared distance of the keys from their mean.
    """

    key_Nd: Tensor
    source_N: Tensor
    row_N: Tensor
    start_N: Tensor
    span_N: Tensor
    variance: Tensor

    def __init__(self, key_Nd: Tensor, moments: Moments, span_N: Tensor, *, temperature: float) -> None:
        """Hold keys.

        Args:
            key_Nd: the keys, of length 1.
            moments: of their clips.
            span_N: (N,) frames of the row from the first to the last frame of a clip, both included.
            temperature: by which similarities are divided.
        """
        super().__init__()
        self.temperature = temperature
        self.key_dim = key_Nd.shape[1]
        named = {"key_Nd": key_Nd, **moments._asdict(), "span_N": span_N, "variance": key_Nd.var(0, correction=0).sum()}
        for name, tensor in named.items():
            self.register_buffer(name, tensor)

    def compare(self, embedding_Bd: Tensor, key_Bd: Tensor, moments: Moments, *, other_time_share: float) -> Comparison:
        """Compare embeddings of length 1 with their own keys and with those of the bank.

        Keys of clips that share a time with the own clip are left out.

        Args:
            embedding_Bd: of the clips.
            key_Bd: the clips' own keys.
            moments: of the clips.
            other_time_share: share of other times of the own video among the negatives, in [0, 1); with 0 they are left
                out.
        """
        similarity_BN = embedding_Bd @ self.key_Nd.T
        own_B1 = (embedding_Bd * key_Bd).sum(dim=1, keepdim=True)
        is_other_video_BN = moments.source_N[:, None] != self.source_N
        is_other_time_BN = ~is_other_video_BN & ~self._overlap(moments)
        num_videos_B1, num_times_B1 = (each.sum(1, keepdim=True) for each in (is_other_video_BN, is_other_time_BN))
        times_weight_B1 = other_time_share / (1 - other_time_share) * num_videos_B1 / num_times_B1.clamp_min(1)
        log_weight_BN = torch.where(is_other_video_BN, 0.0, torch.where(is_other_time_BN, times_weight_B1, 0.0).log())
        logits_BN = similarity_BN / self.temperature + log_weight_BN
        own_logit_B1 = own_B1 / self.temperature
        contrast_B = torch.cat([own_logit_B1, logits_BN], dim=1).logsumexp(dim=1) - own_logit_B1[:, 0]
        is_less_BN = similarity_BN < own_B1
        rank_B, rank_in_video_B = (
            (is_less_BN & among_BN).sum(dim=1) / among_BN.sum(dim=1).clamp_min(1)
            for among_BN in (is_other_video_BN, is_other_time_BN)
        )
        return Comparison(contrast_B, rank_B, rank_in_video_B, num_times_B1[:, 0] > 0)

    def soft_labels(self, embedding_Bd: Tensor, key_Bd: Tensor) -> Tensor:
        """Cross entropy (B,) in nats of embeddings' likeness to the keys of the bank against that of their own keys."""
        wanted_BN = functional.softmax(key_Bd @ self.key_Nd.T / self.temperature, dim=1)
        return -(wanted_BN * functional.log_softmax(embedding_Bd @ self.key_Nd.T / self.temperature, dim=1)).sum(dim=1)

    def regression(self, guess_Bd: Tensor, key_Bd: Tensor) -> Tensor:
        """Squared error (B,) of guesses of the own keys, relative to the keys' variance: 1 for guessing their mean."""
        return (guess_Bd - key_Bd).square().sum(dim=1) / self.variance.clamp_min(torch.finfo(key_Bd.dtype).tiny)

    def _overlap(self, moments: Moments) -> Tensor:
        """Whether clips share a time with those of the bank (B, N)."""
        distance_BN = (moments.start_N[:, None] - self.start_N).abs()
        return (moments.row_N[:, None] == self.row_N) & (distance_BN < self.span_N)
