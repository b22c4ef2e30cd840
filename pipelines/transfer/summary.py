"""What a transfer run prints at its end: did it learn, did it cheat, where are the weights, what to type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pipelines.training.run import FinishedRun
from pipelines.training.worker import Metrics
from pipelines.transfer.config import TransferConfig


def describe_transfer(
    config: TransferConfig, finished: FinishedRun, folders: Sequence[Path], *, num_sources: int, is_labelled: bool
) -> str:
    """Say what came out, and what to type next.

    Args:
        config: of the run.
        finished: the run.
        folders: its shards.
        num_sources: source videos that were held out.
        is_labelled: whether the shards have labels, to fine-tune on.
    """
    before, after = finished.initial, finished.final
    return "\n".join(
        [
            *_describe_validation(before, after, num_sources=num_sources),
            *_describe_checks(before, after),
            *finished.describe_losses(),
            f"weights: {finished.weights}",
            f"mlflow:  {finished.run.describe()}",
            f"next:    {_next(config, finished, folders, is_labelled=is_labelled)}",
        ]
    )


def _describe_validation(before: Metrics, after: Metrics, *, num_sources: int) -> list[str]:
    where, padded = f"{num_sources} held-out source videos", f"padded frames {after['padded_share']:.1%}"
    loss = f"loss {before['loss']:.3f} -> {after['loss']:.3f}"
    if "pair_accuracy" not in after:
        return [f"error of frame features on {where} (a guess of nothing: 1): {loss}; {padded}"]
    return [
        f"pair accuracy on {where} (chance 0.500): {before['pair_accuracy']:.3f} before, "
        f"{after['pair_accuracy']:.3f} after",
        f"{loss}; {padded}; negatives a positive {after['negatives_per_positive']:.2f}",
    ]


def _describe_checks(before: Metrics, after: Metrics) -> list[str]:
    """What the checks and the probe found: lines for the summary."""

    def change(name: str, digits: int = 3) -> str:
        """Before and after; a run may have begun without this measurement."""
        began = f"{before[name]:.{digits}f} before, " if name in before else ""
        return f"{began}{after[name]:.{digits}f} after"

    lines = []
    if "check/pair_accuracy" in after:
        of = {name.removeprefix("check/"): value for name, value in after.items()}
        lines.append(
            f"checks:  pairs {of['pair_accuracy']:.3f} (95 % interval {of['pair_accuracy_low']:.3f} to "
            f"{of['pair_accuracy_high']:.3f}), in other colours {of['pair_accuracy_jittered']:.3f}, frames shuffled "
            f"{of['pair_accuracy_shuffled']:.3f}"
        )
        if "match_share_other_time" in of:
            lines.append(
                f"         judged a match: frames of its own time {of['match_share_own_time']:.3f}, of another time of "
                f"its video {of['match_share_other_time']:.3f}"
            )
        lines.append(
            f"         features: effective rank {change('check/effective_rank', 1)}; spread "
            f"{change('check/feature_std', 2)}"
        )
    for suffix, what in (("", "as trained"), ("_own_statistics", "measured on the probe's videos")):
        if f"probe/linear_top1{suffix}" in after:
            linear, neighbours = (change(f"probe/{kind}_top1{suffix}") for kind in ("linear", "knn"))
            lines.append(f"probe:   linear {linear}; neighbours {neighbours}; batch norms {what}")
    return lines


def _next(config: TransferConfig, finished: FinishedRun, folders: Sequence[Path], *, is_labelled: bool) -> str:
    """Fine-tune from these weights: the network and the clips are those the weights describe."""
    if config.objective == "frame_regression":
        return (
            f"--inflate_from {shlex.quote(str(finished.weights))} of transfer.py or train.py, with this model section"
        )
    shards = [str(folder) for folder in folders] if is_labelled else ["LABELLED_SHARDS"]
    command = ["python", "jobs/train.py", "--init_from", str(finished.weights), "--model", "none", "--clip", "none"]
    command += ["--data.shards", *shards]
    if config.storage != TransferConfig.model_fields["storage"].default:
        command += ["--storage", str(config.storage)]
    return shlex.join(command)
