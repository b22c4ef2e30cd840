"""A batch of the transfer becomes a loss and counts: match or no match (paper 3.2), and guesses of the teacher's keys.

Counts are sums, as in `tasks`. Legend: B clips, C channels, T frames, H x W pixels, D width of a target, P pairs, d
width of a key.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from t3d_core.models.precision import full_precision
from t3d_core.training.tasks import Batch, TaskOutput
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.key_bank import KeyBank, Moments
from t3d_core.transfer.pairing import PairKind, Pairs, all_pairs, drawn_pairs, rolled_pairs, with_other_times
from t3d_core.transfer.teacher import FrozenTeacher
from t3d_core.transfer.whitening import Whitening


class TransferLosses(NamedTuple):
    """Weights of the losses, 0 for those that are not used. The paper has pairs alone."""

    pairs: float = 1.0
    contrast: float = 0.0
    regression: float = 0.0
    soft_labels: float = 0.0


class Keys(NamedTuple):
    """What the losses of keys need: what makes a target a key, and the keys of the training clips."""

    whitening: Whitening
    bank: KeyBank


_PAIRS_ALONE = TransferLosses()
_PAIR_COUNTS = (
    *("num_positives", "loss_sum_positives", "num_correct_positives"),
    *("num_negatives", "loss_sum_negatives", "num_correct_negatives"),
)
_KEY_LOSSES = ("contrast", "regression", "soft_labels")
_KEY_COUNTS = (
    *("num_keys", "rank_sum", "num_keys_of_times", "rank_in_video_sum"),
    *(f"{name}_sum" for name in _KEY_LOSSES),
)


class CorrespondenceTask:
    """What a student learns of a teacher.

    A batch has `clip_BCTHW`, `source_B`, and the teacher's `teacher_frames_BTHWC` (uint8) or, where they were computed
    before, its targets `teacher_BD`. Pairs of kind `literal` also need `is_match_B`, keys `row_id_B` and `start_B`, and
    negatives of other times in pairs `is_other_time_B` and the teacher's of that time, called `other_...`.
    """

    def __init__(
        self,
        net: CorrespondenceNet,
        teacher: FrozenTeacher | None = None,
        *,
        pairs: PairKind = "rolled",
        losses: TransferLosses = _PAIRS_ALONE,
        keys: Keys | None = None,
        other_time_share: float = 0.0,
    ) -> None:
        """Train `net` by the features of `teacher`, which stays outside of it (and so outside of DDP).

        Args:
            net: judges pairs, guesses keys, or both.
            teacher: none where batches bring its targets.
            pairs: which pairs are made of a batch (see `transfer.pairing`). `all` are for training; what is validated,
                with a network in evaluation mode, are `rolled` ones then.
            losses: their weights.
            keys: of the training clips; none where only pairs are learned.
            other_time_share: share of other times of a clip's own video among the negatives at the end of the run, to
                which it grows from 0.
        """
        self.net: nn.Module = net
        self.teacher = teacher
        self.pairs = pairs
        self.losses = losses
        self.keys = keys
        self.other_time_share = other_time_share
        self.count_names: tuple[str, ...] = (
            "num_examples",
            *(_PAIR_COUNTS if losses.pairs else ()),
            *(_KEY_COUNTS if keys else ()),
        )

    def to(self, device: torch.device) -> None:
        """Move the network, the teacher and the keys."""
        for module in (self.net, self.teacher, *(self.keys or ())):
            if module is not None:
                module.to(device)

    def __call__(self, net: nn.Module, batch: Batch) -> TaskOutput:
        """Judge the pairs of a batch, and compare its guesses with the keys."""
        own_BD = self.teacher_features(batch)
        assert isinstance(self.net, CorrespondenceNet), "as given"
        share = self.other_time_share * self.net.progress if net.training else 0.0
        target_BD, pairs = own_BD, None
        if self.losses.pairs:
            pairs = self._pairs_of(batch, is_training=net.training)
            if share:
                pairs = with_other_times(pairs, batch["is_other_time_B"], share=share)
                target_BD = torch.cat([own_BD, self.teacher_features(of_other_time(batch))])
        logits_P2, guess_Bd = net(batch["clip_BCTHW"], target_BD, pairs)
        outputs = []
        if pairs is not None:
            outputs.append(self._of_pairs(logits_P2, pairs, num_clips=len(own_BD)))
        if guess_Bd is not None:
            with full_precision(guess_Bd):  # likenesses are divided by a small temperature
                outputs.append(self._of_keys(guess_Bd.float(), own_BD, batch, other_time_share=share))
        num_examples = len(own_BD if pairs is None else pairs.clip_P)
        counts = {"num_examples": torch.tensor(num_examples, dtype=torch.float64, device=own_BD.device)}
        for output in outputs:
            counts |= output.counts
        return TaskOutput(torch.stack([output.loss for output in outputs]).sum(), counts)

    def teacher_features(self, batch: Batch) -> Tensor:
        """The teacher's target of each clip's frames (B, D)."""
        if "teacher_BD" in batch:
            return batch["teacher_BD"]
        assert self.teacher is not None, "a batch has frames for the teacher, or features"
        return self.teacher(batch["teacher_frames_BTHWC"])

    def _of_pairs(self, logits_P2: Tensor, pairs: Pairs, *, num_clips: int) -> TaskOutput:
        """The loss of all pairs; counts leave out other times of the clips' videos, which validation does not have."""
        losses_P = functional.cross_entropy(logits_P2, pairs.is_match_P, reduction="none")
        is_correct_P = logits_P2.detach().argmax(dim=1) == pairs.is_match_P
        counts = {}
        is_of_other_video_P = (pairs.is_match_P == 0) & (pairs.frames_P < num_clips)
        for kind, is_of_kind_P in (("positives", pairs.is_match_P == 1), ("negatives", is_of_other_video_P)):
            counts[f"num_{kind}"] = is_of_kind_P.sum().double()
            counts[f"loss_sum_{kind}"] = (losses_P.detach().double() * is_of_kind_P).sum()
            counts[f"num_correct_{kind}"] = (is_correct_P & is_of_kind_P).sum().double()
        return TaskOutput(self.losses.pairs * (losses_P * pairs.weight_P).sum(), counts)

    def _of_keys(self, guess_Bd: Tensor, own_BD: Tensor, batch: Batch, *, other_time_share: float) -> TaskOutput:
        assert self.keys is not None, "the network guesses them"
        whitening, bank = self.keys
        key_Bd, embedding_Bd = whitening(own_BD), functional.normalize(guess_Bd, dim=1)
        compared = bank.compare(embedding_Bd, key_Bd, moments_of(batch), other_time_share=other_time_share)
        losses_B = {}
        if self.losses.contrast:
            losses_B["contrast"] = compared.contrast_B
        if self.losses.regression:
            losses_B["regression"] = bank.regression(guess_Bd, key_Bd)
        if self.losses.soft_labels:
            losses_B["soft_labels"] = bank.soft_labels(embedding_Bd, key_Bd)
        loss = sum(getattr(self.losses, name) * values_B.mean() for name, values_B in losses_B.items())
        sums = {name: torch.zeros((), dtype=torch.float64, device=guess_Bd.device) for name in _KEY_LOSSES}
        sums |= {name: values_B.detach().double().sum() for name, values_B in losses_B.items()}
        counts = {f"{name}_sum": value for name, value in sums.items()} | {
            "num_keys": torch.ones_like(compared.rank_B, dtype=torch.float64).sum(),
            "rank_sum": compared.rank_B.double().sum(),
            "num_keys_of_times": compared.has_other_time_B.double().sum(),
            "rank_in_video_sum": (compared.rank_in_video_B * compared.has_other_time_B).double().sum(),
        }
        assert isinstance(loss, Tensor), "there are losses of keys"
        return TaskOutput(loss, counts)

    def _pairs_of(self, batch: Batch, *, is_training: bool) -> Pairs:
        if self.pairs == "literal":
            return drawn_pairs(batch["is_match_B"])
        if self.pairs == "all" and is_training:
            return all_pairs(batch["source_B"])
        return rolled_pairs(batch["source_B"])

    def metrics(self, counts: dict[str, float]) -> dict[str, float]:
        """`loss`, and of each kind of loss what it says.

        Of pairs: `pair_accuracy`, and how many negatives there were for a positive. Their loss and accuracy are the
        means of those on positives and on negatives: the accuracy of chance is 0.5 however many of either there are.
        They are not a number when there was none of a kind.

        Of keys: `key_rank`, the share of the keys of other videos that are less like a clip's embedding than its own
        key (0.5 by chance); `key_rank_in_video`, the same of other times of its video; `key_other_time_share`, the
        share of the clips for which the bank has such keys; and with regression `key_r2`, the share of the keys'
        variance that is guessed (0 or less by chance).
        """
        loss, metrics = 0.0, dict[str, float]()
        if self.losses.pairs:
            found = _pair_metrics(counts)
            loss += self.losses.pairs * found.pop("pair_loss")
            metrics |= found
        if self.keys:
            number = counts["num_keys"] or math.nan
            loss += sum(getattr(self.losses, name) * counts[f"{name}_sum"] / number for name in _KEY_LOSSES)
            metrics["key_rank"] = counts["rank_sum"] / number
            metrics["key_other_time_share"] = counts["num_keys_of_times"] / number
            if counts["num_keys_of_times"]:
                metrics["key_rank_in_video"] = counts["rank_in_video_sum"] / counts["num_keys_of_times"]
            if self.losses.regression:
                metrics["key_r2"] = 1 - counts["regression_sum"] / number
        return {"loss": loss, **metrics}


def moments_of(batch: Batch) -> Moments:
    """When the clips of a batch with `source_B`, `row_id_B` and `start_B` are."""
    return Moments(batch["source_B"], batch["row_id_B"], batch["start_B"])


def of_other_time(batch: Batch) -> Batch:
    """The teacher's frames or targets of another time, under the names of those of the clip's own time."""
    return {name.removeprefix("other_"): values for name, values in batch.items() if name.startswith("other_")}


def _pair_metrics(counts: dict[str, float]) -> dict[str, float]:
    loss, accuracy = [], []
    for kind in ("positives", "negatives"):
        number = counts[f"num_{kind}"] or math.nan
        loss.append(counts[f"loss_sum_{kind}"] / number)
        accuracy.append(counts[f"num_correct_{kind}"] / number)
    return {
        "pair_loss": sum(loss) / 2,
        "pair_accuracy": sum(accuracy) / 2,
        "negatives_per_positive": counts["num_negatives"] / (counts["num_positives"] or math.nan),
    }
