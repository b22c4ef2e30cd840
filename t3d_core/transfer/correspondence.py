"""A clip's feature and a teacher's feature go in, match or no match comes out (paper 3.2, Figure 2).

Legend: B clips, D feature width, P pairs (B positives, then at most B negatives).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from t3d_core.models.precision import full_precision
from t3d_core.transfer.pairing import NO_PARTNER


class PairLogits(NamedTuple):
    """What the net says of P pairs, and what they are: `logits_P2` (P, 2), `is_match_P` (P,) int64."""

    logits_P2: Tensor
    is_match_P: Tensor


class CorrespondenceNet(nn.Module):
    """The student and the head that tells matching from non-matching pairs: all that learns in the transfer.

    The head is fc 512 - fc 128 - 2-way softmax on the concatenated features (paper 3.2: 1024 + 1024 = 2048).
    """

    def __init__(self, student: nn.Module, *, student_dim: int, teacher_dim: int, projection_dim: int = 1024) -> None:
        """Put the head on `student`.

        Args:
            student: a 3D network with `forward_features(clip_BCTHW) -> (B, student_dim)`.
            student_dim: width of the student's feature.
            teacher_dim: width of the teacher's feature.
            projection_dim: a student of another width gets a linear layer to this one, which is dropped afterwards.
        """
        super().__init__()
        self.student = student
        is_projected = student_dim != projection_dim
        self.projection = nn.Linear(student_dim, projection_dim) if is_projected else nn.Identity()
        self.head = nn.Sequential(
            nn.Linear(projection_dim + teacher_dim, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, 2),
        )

    def forward(self, clip_BCTHW: Tensor, teacher_BD: Tensor, partner_B: Tensor) -> PairLogits:
        """Judge every clip with its own frames, and with the frames of its partner where it has one.

        Args:
            clip_BCTHW: float clips as the student takes them.
            teacher_BD: the teacher's feature of each clip's frames.
            partner_B: from `negative_partners`.
        """
        student_BD = self.student.forward_features(clip_BCTHW)  # type: ignore[operator]
        with full_precision(student_BD):
            return self._judge(self.projection(student_BD), teacher_BD, partner_B)

    def _judge(self, student_BD: Tensor, teacher_BD: Tensor, partner_B: Tensor) -> PairLogits:
        has_partner_B = partner_B != NO_PARTNER
        positive = torch.cat([student_BD, teacher_BD], dim=1)
        negative = torch.cat([student_BD[has_partner_B], teacher_BD[partner_B[has_partner_B]]], dim=1)
        is_match_P = torch.cat([partner_B.new_ones(len(positive)), partner_B.new_zeros(len(negative))])
        return PairLogits(self.head(torch.cat([positive, negative])), is_match_P)
