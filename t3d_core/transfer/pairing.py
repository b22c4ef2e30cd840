"""The source videos of a batch become its negative pairs (paper 3.2).

Legend: B clips of a batch.
"""

import torch
from torch import Tensor

NO_PARTNER = -1


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
