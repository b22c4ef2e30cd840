"""Is the student learning, or cheating? Held-out pairs, keys and features are measured in more ways than one accuracy.

Every worker takes its share of the clips; the first one computes the metrics. A check that fails is left out, with a
warning. These are logged at every validation:

check/pair_accuracy, _low, _high      accuracy on held-out pairs, and its 95 % interval over source videos
check/pair_accuracy_jittered          the same, when the student sees the clips in other colours
check/pair_accuracy_shuffled          the same, when it sees their frames in another order
check/match_share_own_time            share of clips that are judged a match with frames of their own time
check/match_share_other_time          the same with another time of their video; if it is equal, time is not seen
check/key_rank, _low, _high           share of the training clips' keys that are less like a held-out clip's embedding
                                      than its own key (0.5 by chance), and its 95 % interval over source videos
check/key_rank_jittered, _shuffled    the same in other colours, and with the frames in another order
check/key_own_time_share              share of clips that are more like the key of their own time than like that of
                                      another time of their video (0.5 by chance)
check/other_time_share                share of clips whose video has another time without a common frame
check/feature_std, effective_rank     how much of their space the student's features fill
probe/linear_top1, _low, _high        a classifier on frozen features of a labelled set, across its sources, and its
                                      95 % interval over them
probe/knn_top1, _low, _high           the same of nearest neighbours
probe/..._own_statistics              the same, with batch norm statistics measured on that set: transductive, because
                                      the features depend on the clips that are classified

Legend: B clips of a batch, N all clips, D feature width.
"""

import copy
import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.clips.batch import NumpyBatch, is_read, readable
from pipelines.clips.config import ClipConfig
from pipelines.clips.loader import BatchLoader
from pipelines.clips.stream import batches_a_task, stream
from pipelines.training.device_batch import to_device
from pipelines.training.worker import Metrics, Worker
from t3d_core.evaluation.intervals import grouped_interval
from t3d_core.evaluation.representation import probe_features, spread_of
from t3d_core.models.execution import Execution
from t3d_core.training.averaging import measure_batch_norms
from t3d_core.training.correspondence_task import CorrespondenceTask, moments_of, of_other_time
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.pairing import Pairs, drawn_pairs, rolled_pairs
from t3d_core.video.augmentation import ColorAugmentation
from t3d_core.video.transforms import normalize_clip

_LOG = logging.getLogger(__name__)
_JITTER = ColorAugmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
PROBE_CLIPS = 3  # clips a video, whose features are averaged
_PROBE_ROWS = 5  # rows a batch


class Examiner:
    """Runs one network on clips, on one worker of several."""

    def __init__(
        self, net: CorrespondenceNet, task: CorrespondenceTask, worker: Worker, execution: Execution, clip: ClipConfig
    ) -> None:
        self._net, self._task, self._worker = net, task, worker
        self._execution, self._clip = execution, clip

    @torch.no_grad()
    def check_held_out(self, batches: Iterator[NumpyBatch]) -> Metrics:
        """Judge held-out pairs and keys of this worker's batches, plain and changed; return metrics of all workers."""
        self._net.eval()
        found: dict[str, list[np.ndarray]] = {}
        for number, batch in enumerate(self._readable(batches)):
            torch.manual_seed(number)
            for name, values in self._judge_batch(batch).items():
                found.setdefault(name, []).append(values.cpu().numpy())
        return self._compute_together(_metrics_of_held_out, found)

    @torch.no_grad()
    def probe(self, loader: BatchLoader) -> Metrics:
        """Classify the labelled rows of a loader by the student's features, also with batch norms measured on them."""
        metrics = self._probe(self._net.student, loader, suffix="")
        own = copy.deepcopy(self._net.student)

        def run_batches() -> None:
            for batch in self._rows(loader):
                self._features(own, to_device(batch, self._worker.device)["clip_BTHWC"])

        measure_batch_norms(own, run_batches, sum_over_workers=self._worker.sum_over_workers)
        return metrics | self._probe(own, loader, suffix="_own_statistics")

    def _probe(self, student: nn.Module, loader: BatchLoader, *, suffix: str) -> Metrics:
        student.eval()
        found: dict[str, list[np.ndarray]] = {"feature": [], "label": [], "source": []}
        for batch in self._rows(loader):
            feature_BSD = self._features(student, to_device(batch, self._worker.device)["clip_BTHWC"]).unflatten(
                0, (len(batch["label_B"]), -1)
            )
            found["feature"].append(feature_BSD.mean(dim=1).cpu().numpy())
            found["label"].append(batch["label_B"])
            found["source"].append(batch["source_B"])
        return self._compute_together(lambda gathered: _metrics_of_probe(gathered, suffix=suffix), found)

    def _rows(self, loader: BatchLoader) -> Iterator[NumpyBatch]:
        """This worker's batches; each batch always has the same rows."""
        size, num_rows = _PROBE_ROWS, len(loader.index)
        batches = range(self._worker.rank, -(-num_rows // size), self._worker.world_size)
        loaded = stream(
            lambda number: loader.center_batch(np.arange(number * size, min((number + 1) * size, num_rows))),
            batches,
            items_a_task=batches_a_task(num_clips=size * PROBE_CLIPS, bytes_a_clip=loader.bytes_a_clip),
        )
        return self._readable(loaded)

    def _readable(self, batches: Iterator[NumpyBatch]) -> Iterator[NumpyBatch]:
        for batch in self._worker.noted(batches):
            if is_read(batch).any():
                yield readable(batch)

    def _judge_batch(self, batch: NumpyBatch) -> dict[str, Tensor]:
        """Judge a batch, plain and changed, and each clip with frames of its own and of another time."""
        tensors = to_device(batch, self._worker.device)
        clip_BTHWC, student = tensors["clip_BTHWC"], self._net.student
        own_BD = self._task.teacher_features(tensors)
        other_BD = self._task.teacher_features(of_other_time(tensors))
        order_T = torch.randperm(clip_BTHWC.shape[1]).to(clip_BTHWC.device)
        versions = {
            "plain": self._features(student, clip_BTHWC),
            "jittered": self._features(student, _JITTER(clip_BTHWC)),
            "shuffled": self._features(student, clip_BTHWC[:, order_T]),
        }
        found = {
            "source_B": tensors["source_B"],
            "is_other_time_B": tensors["is_other_time_B"],
            "feature_BD": versions["plain"],
        }
        if self._net.has_pairs:
            found |= self._judge_pairs(versions, tensors["source_B"], own_BD, other_BD)
        if self._task.keys is not None:
            found |= self._judge_keys(versions, tensors, own_BD, other_BD)
        return found

    def _judge_pairs(
        self, versions: dict[str, Tensor], source_B: Tensor, own_BD: Tensor, other_BD: Tensor
    ) -> dict[str, Tensor]:
        pairs, each_with_its_frames = rolled_pairs(source_B), drawn_pairs(torch.ones_like(source_B))
        judged = {f"{name}_P": self._judges_match(feature_BD, own_BD, pairs) for name, feature_BD in versions.items()}
        return judged | {
            "source_P": source_B[pairs.clip_P],
            "frames_source_P": source_B[pairs.frames_P],
            "is_match_P": pairs.is_match_P,
            "own_time_B": self._judges_match(versions["plain"], own_BD, each_with_its_frames),
            "other_time_B": self._judges_match(versions["plain"], other_BD, each_with_its_frames),
        }

    def _judge_keys(
        self, versions: dict[str, Tensor], tensors: dict[str, Tensor], own_BD: Tensor, other_BD: Tensor
    ) -> dict[str, Tensor]:
        assert self._task.keys is not None, "asked before"
        whitening, bank = self._task.keys
        own_Bd, moments, found = whitening(own_BD), moments_of(tensors), {}
        for name, feature_BD in versions.items():
            embedding_Bd = functional.normalize(self._net.guess(feature_BD), dim=1)
            found[f"{name}_rank_B"] = bank.compare(embedding_Bd, own_Bd, moments, other_time_share=0).rank_B
            if name == "plain":
                own_B, other_B = ((embedding_Bd * key).sum(dim=1) for key in (own_Bd, whitening(other_BD)))
                found["prefers_own_time_B"] = own_B > other_B
        return found

    def _judges_match(self, feature_BD: Tensor, teacher_BD: Tensor, pairs: Pairs) -> Tensor:
        logits_P2 = self._net.judge(feature_BD, teacher_BD, pairs)
        return logits_P2[:, 1] > logits_P2[:, 0]

    def _features(self, student: nn.Module, clip_BTHWC: Tensor) -> Tensor:
        """The student's features; several clips a row (B, S, T, H, W, C) go through one after the other."""
        clips = clip_BTHWC.flatten(0, -5)
        with self._execution.autocast(self._worker.device):
            clip_BCTHW = normalize_clip(clips, mean=self._clip.mean, std=self._clip.std)
            return student.forward_features(clip_BCTHW).float()  # type: ignore[operator]

    def _compute_together(
        self, compute: Callable[[dict[str, np.ndarray]], Metrics], found: dict[str, list[np.ndarray]]
    ) -> Metrics:
        """Join the arrays of all workers, let the first one compute the metrics, and share them with all."""
        gathered = [each for each in self._worker.gather([found]) if any(each.values())]
        metrics: Metrics = {}
        if self._worker.rank == 0 and gathered:
            names = gathered[0]
            try:
                metrics = compute(
                    {name: np.concatenate([part for each in gathered for part in each[name]]) for name in names}
                )
            except (ValueError, np.linalg.LinAlgError) as error:  # a check must not end the run that it measures
                _LOG.warning("A check of the transfer is left out: %s", error)
        return self._worker.share(metrics)


def _metrics_of_probe(found: dict[str, np.ndarray], *, suffix: str) -> Metrics:
    accuracy = probe_features(found["feature"], found["label"], found["source"])
    metrics: Metrics = {}
    for kind, top1, interval in (
        ("linear", accuracy.linear_top1, accuracy.linear_interval),
        ("knn", accuracy.knn_top1, accuracy.knn_interval),
    ):
        name = f"probe/{kind}_top1{suffix}"
        metrics |= {name: top1, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return metrics


def _metrics_of_held_out(found: dict[str, np.ndarray]) -> Metrics:
    spread, is_other_B = spread_of(found["feature_BD"]), found["is_other_time_B"]
    metrics = {
        "other_time_share": float(is_other_B.mean()),
        "feature_std": spread.std,
        "effective_rank": spread.effective_rank,
    }
    if "plain_P" in found:
        metrics |= _metrics_of_pairs(found)
    if "plain_rank_B" in found:
        metrics |= _metrics_of_keys(found)
    return {f"check/{name}": value for name, value in metrics.items()}


def _metrics_of_pairs(found: dict[str, np.ndarray]) -> Metrics:
    is_match_P = found["is_match_P"] == 1

    def accuracy(judged_match_P: np.ndarray, weight_P: np.ndarray | None = None) -> float:
        """The mean of the accuracies on matches and on other pairs, as far as both kinds exist."""
        is_right_P = judged_match_P == is_match_P
        weight_P = np.ones(len(is_right_P)) if weight_P is None else weight_P
        kinds = [kind_P for kind_P in (is_match_P, ~is_match_P) if weight_P[kind_P].any()]
        return float(np.mean([np.average(is_right_P[kind_P], weights=weight_P[kind_P]) for kind_P in kinds]))

    def accuracy_of_drawn(clip_P: np.ndarray, frames_P: np.ndarray) -> float:
        """A pair of two videos counts as often as both were drawn."""
        return accuracy(found["plain_P"], np.where(is_match_P, clip_P, clip_P * frames_P))

    interval = grouped_interval(accuracy_of_drawn, found["source_P"], found["frames_source_P"])
    is_other_B = found["is_other_time_B"]
    metrics = {
        "pair_accuracy": accuracy(found["plain_P"]),
        "pair_accuracy_low": interval.low,
        "pair_accuracy_high": interval.high,
        "pair_accuracy_jittered": accuracy(found["jittered_P"]),
        "pair_accuracy_shuffled": accuracy(found["shuffled_P"]),
    }
    if is_other_B.any():
        metrics["match_share_own_time"] = float(found["own_time_B"][is_other_B].mean())
        metrics["match_share_other_time"] = float(found["other_time_B"][is_other_B].mean())
    return metrics


def _metrics_of_keys(found: dict[str, np.ndarray]) -> Metrics:
    rank_B, is_other_B = found["plain_rank_B"], found["is_other_time_B"]
    interval = grouped_interval(lambda weight_B: float(np.average(rank_B, weights=weight_B)), found["source_B"])
    metrics = {
        "key_rank": float(rank_B.mean()),
        "key_rank_low": interval.low,
        "key_rank_high": interval.high,
        "key_rank_jittered": float(found["jittered_rank_B"].mean()),
        "key_rank_shuffled": float(found["shuffled_rank_B"].mean()),
    }
    if is_other_B.any():
        metrics["key_own_time_share"] = float(found["prefers_own_time_B"][is_other_B].mean())
    return metrics
