"""A clip's feature and a teacher's feature go in, match or no match comes out (paper 3.2, Figure 2).

Legend: B clips, D feature width, P pairs.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from t3d_core.models.precision import full_precision
from t3d_core.transfer.pairing import Pairs

ProjectionKind = Literal["auto", "always", "mlp"]


class PairHead(nn.Module):
    """fc 512 - fc 128 - 2-way on the two features side by side (paper 3.2: 1024 + 1024 = 2048).

    The first layer is linear: its sum over the clip's feature is made once a clip and that over the teacher's once for
    its frames, and every pair adds two of them.
    """

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.student_dim = student_dim
        self.first = nn.Linear(student_dim + teacher_dim, 512)
        self.second = nn.Linear(512, 128)
        self.last = nn.Linear(128, 2)

    def forward(self, student_BD: Tensor, teacher_BD: Tensor, clip_P: Tensor, frames_P: Tensor) -> Tensor:
        """Give the logits (P, 2) of no match and match of the clips `clip_P` with the frames `frames_P`."""
        of_student, of_teacher = self.first.weight.tensor_split([self.student_dim], dim=1)
        clips = functional.linear(student_BD, of_student, self.first.bias)
        frames = functional.linear(teacher_BD, of_teacher)
        hidden = functional.relu(clips[clip_P] + frames[frames_P])
        return self.last(functional.relu(self.second(hidden)))


class CorrespondenceNet(nn.Module):
    """The student and the head that separates matching from non-matching pairs: all that learns in the transfer."""

    def __init__(
        self,
        student: nn.Module,
        *,
        student_dim: int,
        teacher_dim: int,
        projection_dim: int = 1024,
        projection: ProjectionKind = "auto",
        norm_features: bool = False,
    ) -> None:
        """Put the head on `student`.

        Args:
            student: a 3D network with `forward_features(clip_BCTHW) -> (B, student_dim)`.
            student_dim: width of the student's feature.
            teacher_dim: width of the teacher's feature.
            projection_dim: width of what the head takes from the student.
            projection: layers between the two, which are dropped afterwards. `auto`: a linear one where the widths
                differ; `always`: a linear one for every student, as the paper's text has it (3.2); `mlp`: two with a
                ReLU between them (Paper: not in it).
            norm_features: batch-normalise both features, without weights, before anything is made of them.
                Paper: not in it. A student whose features are mostly alike can separate pairs by a few dimensions;
                where every dimension has the same variance it must use them all.
        """
        super().__init__()
        self.student = student
        self.student_norm = nn.BatchNorm1d(student_dim, affine=False) if norm_features else nn.Identity()
        self.teacher_norm = nn.BatchNorm1d(teacher_dim, affine=False) if norm_features else nn.Identity()
        self.projection = _projection(projection, student_dim, projection_dim)
        self.head = PairHead(projection_dim, teacher_dim)

    def forward(self, clip_BCTHW: Tensor, teacher_BD: Tensor, pairs: Pairs) -> Tensor:
        """Judge the pairs: logits (P, 2) of no match and match.

        Args:
            clip_BCTHW: float clips as the student takes them.
            teacher_BD: the teacher's feature of each clip's frames.
            pairs: of the batch.
        """
        return self.judge(self.student.forward_features(clip_BCTHW), teacher_BD, pairs)  # type: ignore[operator]

    def judge(self, student_BD: Tensor, teacher_BD: Tensor, pairs: Pairs) -> Tensor:
        """Judge the pairs by the student's features of the clips (B, student_dim): logits (P, 2)."""
        with full_precision(student_BD):
            projected_BD = self.projection(self.student_norm(student_BD))
            return self.head(projected_BD, self.teacher_norm(teacher_BD), pairs.clip_P, pairs.frames_P)


def _projection(kind: ProjectionKind, student_dim: int, projection_dim: int) -> nn.Module:
    if kind == "mlp":
        return nn.Sequential(
            nn.Linear(student_dim, projection_dim), nn.ReLU(), nn.Linear(projection_dim, projection_dim)
        )
    if kind == "always" or student_dim != projection_dim:
        return nn.Linear(student_dim, projection_dim)
    return nn.Identity()
