"""A batch becomes a loss and counts: classification, image-video correspondence, and regression of frame features.

Counts are sums, never means: adding those of all batches and workers gives the same metric for any number of workers.
Legend: B examples, C channels, T frames, H x W pixels, K classes, P pairs. An example is a clip, or the S clips of a
video that are classified together (`num_segments`): then `clip_BCTHW` holds B * S, one video after the other.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from t3d_core.training.mixing import Mixing
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.pairing import PairKind, Pairs, all_pairs, drawn_pairs, rolled_pairs
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


class CorrespondenceTask:
    """Match or no match of clips and frames.

    A batch has `clip_BCTHW`, `source_B`, and the teacher's `teacher_frames_BTHWC` (uint8) or, where they were computed
    before, its features `teacher_BD`; for the pairs of kind `literal` also `is_match_B`.
    """

    count_names: tuple[str, ...] = (
        "num_examples",
        *("num_positives", "loss_sum_positives", "num_correct_positives"),
        *("num_negatives", "loss_sum_negatives", "num_correct_negatives"),
    )

    def __init__(
        self, net: CorrespondenceNet, teacher: FrozenTeacher | None = None, *, pairs: PairKind = "rolled"
    ) -> None:
        """Train `net` by the features of `teacher`, which stays outside of it (and so outside of DDP).

        Args:
            net: judges pairs.
            teacher: none where batches bring its features.
            pairs: which pairs are made of a batch (see `transfer.pairing`). `all` are for training; what is validated,
                with a network in evaluation mode, are `rolled` ones then.
        """
        self.net: nn.Module = net
        self.teacher = teacher
        self.pairs = pairs

    def to(self, device: torch.device) -> None:
        """Move the network and the teacher."""
        self.net.to(device)
        if self.teacher is not None:
            self.teacher.to(device)

    def __call__(self, net: nn.Module, batch: Batch) -> TaskOutput:
        """Judge the pairs of a batch."""
        pairs = self._pairs_of(batch, is_training=net.training)
        logits_P2 = net(batch["clip_BCTHW"], self.teacher_features(batch), pairs)
        losses_P = functional.cross_entropy(logits_P2, pairs.is_match_P, reduction="none")
        is_correct_P = logits_P2.detach().argmax(dim=1) == pairs.is_match_P
        counts = {"num_examples": torch.ones_like(losses_P, dtype=torch.float64).sum()}
        for kind, is_of_kind_P in (("positives", pairs.is_match_P == 1), ("negatives", pairs.is_match_P == 0)):
            counts[f"num_{kind}"] = is_of_kind_P.sum().double()
            counts[f"loss_sum_{kind}"] = (losses_P.detach().double() * is_of_kind_P).sum()
            counts[f"num_correct_{kind}"] = (is_correct_P & is_of_kind_P).sum().double()
        return TaskOutput((losses_P * pairs.weight_P).sum(), counts)

    def teacher_features(self, batch: Batch) -> Tensor:
        """The teacher's feature of each clip's frames (B, D)."""
        if "teacher_BD" in batch:
            return batch["teacher_BD"]
        assert self.teacher is not None, "a batch has frames for the teacher, or features"
        return self.teacher(batch["teacher_frames_BTHWC"])

    def _pairs_of(self, batch: Batch, *, is_training: bool) -> Pairs:
        if self.pairs == "literal":
            return drawn_pairs(batch["is_match_B"])
        if self.pairs == "all" and is_training:
            return all_pairs(batch["source_B"])
        return rolled_pairs(batch["source_B"])

    def metrics(self, counts: dict[str, float]) -> dict[str, float]:
        """`loss`, `pair_accuracy`, and how many negatives there were for a positive.

        Loss and accuracy are the means of those on positives and on negatives: the accuracy of chance is 0.5 however
        many of either there are. They are not a number when there was none of a kind.
        """
        loss, accuracy = [], []
        for kind in ("positives", "negatives"):
            number = counts[f"num_{kind}"] or math.nan
            loss.append(counts[f"loss_sum_{kind}"] / number)
            accuracy.append(counts[f"num_correct_{kind}"] / number)
        return {
            "loss": sum(loss) / 2,
            "pair_accuracy": sum(accuracy) / 2,
            "negatives_per_positive": counts["num_negatives"] / (counts["num_positives"] or math.nan),
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
