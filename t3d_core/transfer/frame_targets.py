"""The teacher's features of a clip's frames become the one vector that the student learns from.

    mean                   what the frames have in common (paper 3.2)
    mean_std               the mean, and beside it how much the frames differ: motion, without its direction
    ordered_differences    the mean, and beside it what changes from each third of the frames to the next: motion, with
                           its direction

Paper: only the mean.

Legend: B clips, T frames, D feature width, P parts.
"""

from typing import Literal

import torch
from torch import Tensor

from t3d_core.errors import UserError

TargetKind = Literal["mean", "mean_std", "ordered_differences"]
NUM_PARTS: dict[TargetKind, int] = {"mean": 1, "mean_std": 2, "ordered_differences": 3}
"""Vectors of the feature's width that stand side by side in a target of this kind."""
_FEWEST_FRAMES: dict[TargetKind, int] = {"mean": 1, "mean_std": 2, "ordered_differences": 3}


def summarize_frames(feature_BTD: Tensor, kind: TargetKind) -> Tensor:
    """Give the targets (B, P * D) of clips from the features of their frames, which are in their order.

    Args:
        feature_BTD: of enough frames (see `check_num_frames`).
        kind: which target.
    """
    mean_BD = feature_BTD.mean(dim=1)
    if kind == "mean":
        return mean_BD
    if kind == "mean_std":
        return torch.cat([mean_BD, feature_BTD.std(dim=1, correction=0)], dim=1)
    first_BD, middle_BD, last_BD = (third.mean(dim=1) for third in feature_BTD.tensor_split(3, dim=1))
    return torch.cat([mean_BD, middle_BD - first_BD, last_BD - middle_BD], dim=1)


def check_num_frames(kind: TargetKind, num_frames: int) -> None:
    """Check that a teacher sees enough frames for all parts of its target to say something.

    Raises:
        UserError: it sees too few.
    """
    if num_frames < (fewest := _FEWEST_FRAMES[kind]):
        raise UserError(
            f"teacher.target {kind} needs at least {fewest} frames of a clip, but teacher.num_frames is {num_frames}: "
            "raise it, or choose another target"
        )
