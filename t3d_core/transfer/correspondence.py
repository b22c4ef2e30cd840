"""A clip's feature and a teacher's feature go in, match or no match comes out (paper 3.2, Figure 2).

Beside the pair head, or in its place, a projector may turn a clip's feature into an embedding that is compared with
keys (see `key_bank`; Paper: not in it). Head and projector are dropped after the transfer.

Legend: B clips, D feature width, P pairs, d width of a key.
"""

from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from t3d_core.models.precision import full_precision
from t3d_core.transfer.pairing import Pairs

ProjectionKind = Literal["auto", "always", "mlp"]
_PROJECTOR_WIDTH = 512


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


class StudentOutput(NamedTuple):
    """What the student says of a batch of clips; None where it has no such head.

    Attributes:
        logits_P2: no match and match of the pairs.
        guess_Bd: guesses of the clips' keys.
    """

    logits_P2: Tensor | None
    guess_Bd: Tensor | None


class CorrespondenceNet(nn.Module):
    """The student and its heads: all that learns in the transfer.

    Attributes:
        progress: share of the run that is over, in [0, 1), which the run sets.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        student_dim: int,
        teacher_dim: int,
        projection_dim: int = 1024,
        projection: ProjectionKind = "auto",
        norm_features: bool = False,
        has_pairs: bool = True,
        key_dim: int | None = None,
    ) -> None:
        """Put the heads on `student`.

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
            has_pairs: whether it judges pairs.
            key_dim: width of the keys that it guesses; None: it guesses none.
        """
        super().__init__()
        self.student = student
        self.has_pairs = has_pairs
        self.progress = 0.0
        if has_pairs:
            self.student_norm = nn.BatchNorm1d(student_dim, affine=False) if norm_features else nn.Identity()
            self.teacher_norm = nn.BatchNorm1d(teacher_dim, affine=False) if norm_features else nn.Identity()
            self.projection = _projection(projection, student_dim, projection_dim)
            self.head = PairHead(projection_dim, teacher_dim)
        self.projector = None if key_dim is None else _projector(student_dim, key_dim)

    def forward(self, clip_BCTHW: Tensor, teacher_BD: Tensor, pairs: Pairs | None) -> StudentOutput:
        """Judge the pairs, and guess the keys.

        Args:
            clip_BCTHW: float clips as the student takes them.
            teacher_BD: the teacher's targets that the pairs name.
            pairs: of the batch; None without a pair head.
        """
        student_BD: Tensor = self.student.forward_features(clip_BCTHW)  # type: ignore[operator]
        logits_P2 = None if pairs is None else self.judge(student_BD, teacher_BD, pairs)
        return StudentOutput(logits_P2, None if self.projector is None else self.guess(student_BD))

    def judge(self, student_BD: Tensor, teacher_BD: Tensor, pairs: Pairs) -> Tensor:
        """Judge the pairs by the student's features of the clips (B, student_dim): logits (P, 2)."""
        with full_precision(student_BD):
            projected_BD = self.projection(self.student_norm(student_BD))
            return self.head(projected_BD, self.teacher_norm(teacher_BD), pairs.clip_P, pairs.frames_P)

    def guess(self, student_BD: Tensor) -> Tensor:
        """Guess the keys (B, d) of clips by the student's features of them (B, student_dim)."""
        assert self.projector is not None, "asked for at the start"
        with full_precision(student_BD):
            return self.projector(student_BD)


def _projection(kind: ProjectionKind, student_dim: int, projection_dim: int) -> nn.Module:
    if kind == "mlp":
        return nn.Sequential(
            nn.Linear(student_dim, projection_dim), nn.ReLU(), nn.Linear(projection_dim, projection_dim)
        )
    if kind == "always" or student_dim != projection_dim:
        return nn.Linear(student_dim, projection_dim)
    return nn.Identity()


def _projector(student_dim: int, key_dim: int) -> nn.Module:
    """Two layers between a feature and a key: what is said of the keys alone is learned in them, and dropped.

    The features are batch-normalised before them without weights, as with `norm_features`.
    """
    return nn.Sequential(
        nn.BatchNorm1d(student_dim, affine=False),
        nn.Linear(student_dim, _PROJECTOR_WIDTH, bias=False),
        nn.BatchNorm1d(_PROJECTOR_WIDTH),
        nn.ReLU(),
        nn.Linear(_PROJECTOR_WIDTH, key_dim),
    )
