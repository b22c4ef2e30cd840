"""The results of a test become the lines that are printed at its end."""

from collections.abc import Mapping, Sequence

from pipelines.settings.terminal import Field
from pipelines.shards.index import ShardIndex
from t3d_core.evaluation.class_report import ClassReport
from t3d_core.evaluation.evaluation import Evaluation, FoldsEvaluation
from t3d_core.training.weights_card import WeightsCard

_NUM_WEAK_CLASSES = 5


def describe_evaluation(evaluation: Evaluation, card: WeightsCard) -> list[Field]:
    """The accuracies, and what was tested."""
    segments = f"{card.num_segments} segments of " if card.num_segments > 1 else ""
    padded = f", {evaluation.padded_share:.1%} of frames made up" if evaluation.padded_share else ""
    return [
        (
            "result",
            f"{describe_top(evaluation)}  clip_top1 {evaluation.clip_top1:.3f}  "
            f"avg_top1_top5 {evaluation.avg_top1_top5:.3f}  "
            f"(chance {1 / len(card.class_names):.3f})",
        ),
        (
            "tested",
            f"{evaluation.num_videos} of {evaluation.num_listed} listed videos (coverage {evaluation.coverage:.1%}), "
            f"{evaluation.num_views} views{padded}; {card.model_kind}, {segments}{card.num_frames} frames of "
            f"{card.crop_size} px at {card.describe_distance()}",
        ),
    ]


def describe_top(evaluation: Evaluation) -> str:
    """The accuracies of videos, with their intervals."""
    return "  ".join(_with_interval(evaluation, name) for name in ("video_top1", "video_top5"))


def describe_failures(failures: Mapping[int, str], index: ShardIndex) -> str:
    """How many videos failed, and the first of them."""
    row = min(failures)
    return (
        f"{len(failures)} of {len(index)} videos cannot be read or decoded, such as {index.video_id_N[row]}: "
        f"{failures[row]}"
    )


def describe_classes(report: ClassReport, names: Sequence[str]) -> str:
    """The classes with the lowest accuracy, and the class that each is most often confused with."""
    confused = report.most_confused()
    weakest = sorted(confused, key=lambda label: (report.recall_K[label], label))[:_NUM_WEAK_CLASSES]
    if not weakest:
        return "none: every video is recognised"
    return ", ".join(
        f"{names[label]} {report.recall_K[label]:.2f} ({confused[label].num_examples} as "
        f"{names[confused[label].predicted]})"
        for label in weakest
    )


def describe_folds(evaluation_of_fold: Mapping[int, Evaluation], averaged: FoldsEvaluation) -> list[Field]:
    """The mean over folds, and each of them."""
    shown = ("video_top1", "video_top5", "clip_top1", "coverage")
    spread = {name: f" +- {averaged.std[name]:.3f}" if averaged.std else "" for name in shown}
    mean = "  ".join(f"{name} {averaged.mean[name]:.3f}{spread[name]}" for name in shown)
    of_folds = [
        (
            f"fold {fold}",
            f"{describe_top(evaluation)}  "
            f"clip_top1 {evaluation.clip_top1:.3f}  "
            f"coverage {evaluation.coverage:.1%} of {evaluation.num_listed} listed",
        )
        for fold, evaluation in evaluation_of_fold.items()
    ]
    return [("result", f"mean of {len(averaged.folds)} folds: {mean}"), *of_folds]


def _with_interval(evaluation: Evaluation, name: str) -> str:
    low, high = getattr(evaluation, f"{name}_low"), getattr(evaluation, f"{name}_high")
    return f"{name} {getattr(evaluation, name):.3f} [{low:.3f}, {high:.3f}]"
