"""A batch becomes a loss and counts: classification, and regression of frame features.

`correspondence_task` has that of the transfer.

Counts are sums, never means: adding those of all batches and workers gives the same metric for any number of workers.
Legend: B examples, C channels, T frames, H x W pixels, K classes. An example is a clip, or the S clips of a
video that are classified together (`num_segments`): then `clip_BCTHW` holds B * S, one video after the other.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from t3d_core.training.mixing import Mixing
from t3d_core.transfer.teacher import FrozenTeacher
from t3d_core.transfer.twin import FrameRegressionNet

Batch = dict[str, Tensor]


class TaskOutput(NamedTuple):
    """The loss to go down, a mean over the batch's examples, and the counts it is reported by (scalars, float64)."""

    loss: Tensor
    counts: dict[str, Tensor]


class Task(Protocol):
    """What is trained and by which loss."""

    net: nn.Module
    count_names: tuple[str, ...]

    def to(self, device: torch.device) -> None:
        """Move everything to `device`."""

    def __call__(self, net: nn.Module, batch: Batch) -> TaskOutput:
        """Run `net`, which is `self.net` or its DDP wrapper, on a batch."""

    def metrics(self, counts: dict[str, float]) -> dict[str, float]:
        """Turn summed counts into named metrics."""


class ClassificationTask:
    """Cross entropy of a video classifier on `clip_BCTHW` and `label_B`.

    Label smoothing and mixing are for training, when the network that is run is in training mode; `loss_sum` is of what
    is optimised then, and plain cross entropy in validation. Of mixed clips the class with the larger share counts as
    right (of equal shares the first class).
    """

    count_names: tuple[str, ...] = ("loss_sum", "num_correct", "num_correct_top5", "num_examples")

    def __init__(self, net: nn.Module, *, label_smoothing: float = 0.0, mixing: Mixing | None = None) -> None:
        """Train `net`, which gives logits.

        Args:
            net: takes `clip_BCTHW` and gives `logits_BK`.
            label_smoothing: share of the label that is spread over all classes, in [0, 1].
            mixing: mixes the clips and labels of a batch; None: they stay as they are.
        """
        self.net = net
        self.label_smoothing = label_smoothing
        self.mixing = mixing

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.net.to(device)

    def __call__(self, net: nn.Module, batch: Batch) -> TaskOutput:
        """Classify every example."""
        clip_BCTHW, target, label_smoothing = batch["clip_BCTHW"], batch["label_B"], 0.0
        if net.training:
            label_smoothing = self.label_smoothing
            if self.mixing is not None:
                clip_BCTHW, target = self.mixing(clip_BCTHW, target)
        logits_BK = net(clip_BCTHW)
        losses_B = functional.cross_entropy(logits_BK, target, reduction="none", label_smoothing=label_smoothing)
        label_B = target if target.ndim == 1 else target.argmax(dim=1)
        return TaskOutput(
            losses_B.mean(),
            {
                "loss_sum": losses_B.detach().double().sum(),
                "num_correct": _num_correct_top(logits_BK, label_B, k=1),
                "num_correct_top5": _num_correct_top(logits_BK, label_B, k=5),
                "num_examples": torch.ones_like(losses_B, dtype=torch.float64).sum(),
            },
        )

    def metrics(self, counts: dict[str, float]) -> dict[str, float]:
        """`loss`, `clip_top1` and `clip_top5`, which is 1 where there are no more than 5 classes."""
        return {
            "loss": counts["loss_sum"] / counts["num_examples"],
            "clip_top1": counts["num_correct"] / counts["num_examples"],
            "clip_top5": counts["num_correct_top5"] / counts["num_examples"],
        }


class FrameRegressionTask:
    """A student's 2D twin guesses the teacher's features, frame by frame, of `clip_BCTHW` and `teacher_frames_BTHWC`.

    Paper: not in it; a control (see `transfer.twin`). The loss is the mean squared error of features with mean 0 and
    variance 1 over their width, so that it is 1 for a guess of nothing whatever the teacher's scale.
    """

    count_names: tuple[str, ...] = ("loss_sum", "num_examples")

    def __init__(self, net: FrameRegressionNet, teacher: FrozenTeacher) -> None:
        """Train `net` by the features of `teacher`, which sees the same frames of each clip."""
        self.net: nn.Module = net
        self.teacher = teacher

    def to(self, device: torch.device) -> None:
        """Move the network and the teacher."""
        self.net.to(device)
        self.teacher.to(device)

    def __call__(self, net: nn.Module, batch: Batch) -> TaskOutput:
        """Guess the features of every frame."""
        clip_BCTHW = batch["clip_BCTHW"]
        feature_ND = self.teacher.frame_features(batch["teacher_frames_BTHWC"]).flatten(0, 1)
        target_ND = functional.layer_norm(feature_ND, feature_ND.shape[1:])
        losses_N = (net(clip_BCTHW).float() - target_ND).square().mean(dim=1)
        losses_B = losses_N.unflatten(0, (len(clip_BCTHW), -1)).mean(dim=1)
        return TaskOutput(
            losses_B.mean(),
            {
                "loss_sum": losses_B.detach().double().sum(),
                "num_examples": torch.ones_like(losses_B, dtype=torch.float64).sum(),
            },
        )

    def metrics(self, counts: dict[str, float]) -> dict[str, float]:
        """`loss`, the mean squared error."""
        return {"loss": counts["loss_sum"] / counts["num_examples"]}


def _num_correct_top(logits_BK: Tensor, label_B: Tensor, *, k: int) -> Tensor:
    """Count the labels among the k highest logits; a tie counts against the label, as in `evaluation.metrics`."""
    own_B1 = logits_BK.gather(1, label_B[:, None])
    num_below_B = (logits_BK < own_B1).sum(dim=1)
    return (num_below_B >= logits_BK.shape[1] - k).sum().double()
