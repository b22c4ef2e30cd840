"""The clips of a batch become pairs of a clip and a clip's frames, which match or do not (paper 3.2).

Three ways, from the paper's own to ours; both networks see each clip once, and match and no match count alike:

    literal (drawn)   0-0  1-7  2-2  3-9       frames of a negative are of a clip of their own: B pairs
    rolled            0-0  1-1  2-2  3-3       and B negatives from the same passes: 2 B pairs
                      0-1  1-2  2-3  3-0
    all               every clip with the frames of every other source: up to B x B pairs

Legend: B clips of a batch, P pairs.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

PairKind = Literal["rolled", "literal", "all"]
NO_PARTNER = -1


class Pairs(NamedTuple):
    """Which clip is judged with whose frames.

    Attributes:
        clip_P: (P,) int64, places in the batch.
        frames_P: (P,) int64, places in the batch of those whose frames are taken.
        is_match_P: (P,) int64, 1 for frames of the clip's own time, 0 for those of another source.
        weight_P: (P,) float32, share of the loss.
    """

    clip_P: Tensor
    frames_P: Tensor
    is_match_P: Tensor
    weight_P: Tensor


def drawn_pairs(is_match_B: Tensor) -> Pairs:
    """Take each clip with the frames that came with it: B pairs, which match where `is_match_B` (B,) is true.

    Paper: 3.2 read literally. The loader draws each pair anew, with the frames of a negative from another video.
    """
    clip_B = torch.arange(len(is_match_B), device=is_match_B.device)
    return Pairs(clip_B, clip_B, is_match_B.long(), torch.full_like(clip_B, 1 / len(clip_B), dtype=torch.float32))


def rolled_pairs(source_B: Tensor) -> Pairs:
    """Take each clip with its own frames and with those of its partner: B positives, then at most B negatives.

    Args:
        source_B: (B,) integers, equal for clips of the same source video.
    """
    partner_B = negative_partners(source_B)
    [has_partner] = torch.nonzero(partner_B != NO_PARTNER, as_tuple=True)
    return _with_negatives(source_B, has_partner, partner_B[has_partner])


def all_pairs(source_B: Tensor) -> Pairs:
    """Take each clip with its own frames and with those of every other source: B positives, then all negatives.

    Paper: not in it. The features of one batch make B times as many negatives as `rolled_pairs`.

    Args:
        source_B: (B,) integers, equal for clips of the same source video.
    """
    is_other_BB = source_B[:, None] != source_B[None, :]
    return _with_negatives(source_B, *torch.nonzero(is_other_BB, as_tuple=True))


def with_other_times(pairs: Pairs, is_other_time_B: Tensor, *, share: float) -> Pairs:
    """Add negatives with the frames of another time of the clip's own video; those of clip i are at place B + i.

    Paper: not in it. Frames of another video are told apart by the scene alone, these are not (Korbar et al. 2018).

    Args:
        pairs: of B clips.
        is_other_time_B: (B,) bool, whether a clip's video has another time.
        share: share of the negatives' half of the loss that they take, in [0, 1).
    """
    [clip_N] = torch.nonzero(is_other_time_B, as_tuple=True)
    if not share or not len(clip_N):
        return pairs
    added = [clip_N, clip_N + len(is_other_time_B), torch.zeros_like(clip_N)]
    weight_P = torch.where(pairs.is_match_P == 1, pairs.weight_P, pairs.weight_P * (1 - share))
    weight_N = torch.full_like(clip_N, 0.5 * share / len(clip_N), dtype=torch.float32)
    clip_P, frames_P, is_match_P = (torch.cat(both) for both in zip(pairs[:3], added, strict=True))
    return Pairs(clip_P, frames_P, is_match_P, torch.cat([weight_P, weight_N]))


def _with_negatives(source_B: Tensor, clip_N: Tensor, frames_N: Tensor) -> Pairs:
    """Put the positives before N negatives; each kind is half of the loss, however many clips found a negative."""
    clip_B = torch.arange(len(source_B), device=source_B.device)
    weights = [torch.full_like(clips, 0.5 / max(1, len(clips)), dtype=torch.float32) for clips in (clip_B, clip_N)]
    is_match_P = torch.cat([torch.ones_like(clip_B), torch.zeros_like(clip_N)])
    return Pairs(torch.cat([clip_B, clip_N]), torch.cat([clip_B, frames_N]), is_match_P, torch.cat(weights))


def negative_partners(source_B: Tensor) -> Tensor:
    """Choose for every clip another clip whose frames make a negative pair with it.

    The batch, ordered so that clips of one source video stand together, is rolled by the size of the largest such
    group. With all sources different that is a roll by one:

        clip     0 1 2 3
        frames   1 2 3 0

    Paper: 3.2 draws frames and clip of a negative "from two different videos" anew; rolling the batch gives every clip
    one positive and one negative from a single pass through both networks, and batch normalisation sees both mixed.

    Args:
        source_B: (B,) integers, equal for clips of the same source video.

    Returns:
        (B,) int64: the clip whose frames are taken, each at most once and never of the same source; `NO_PARTNER` where
        more than half of the batch is one source and none is left.
    """
    batch = len(source_B)
    is_same_BB = source_B[:, None] == source_B[None, :]
    first_seen_B = is_same_BB.int().argmax(dim=1)
    order_B = torch.argsort(first_seen_B, stable=True)
    roll = int(is_same_BB.sum(dim=1).max())
    partner_B = torch.empty(batch, dtype=torch.int64, device=source_B.device)
    partner_B[order_B] = order_B.roll(-roll)
    return torch.where(source_B[partner_B] == source_B, NO_PARTNER, partner_B)
