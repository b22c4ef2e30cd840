"""The summary of a transfer run: did it learn, did it cheat, where are the weights, which command comes next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pipelines.settings.terminal import Field, format_summary
from pipelines.training.run import FinishedRun, describe_padding
from pipelines.training.worker import Metrics
from pipelines.transfer.config import TransferConfig


def describe_transfer(
    config: TransferConfig, finished: FinishedRun, folders: Sequence[Path], *, num_sources: int, is_labelled: bool
) -> str:
    """The results, and the next command.

    Args:
        config: of the run.
        finished: the run.
        folders: its shards.
        num_sources: source videos that were held out.
        is_labelled: whether the shards have labels for fine-tuning.
    """
    before, after = finished.initial, finished.final
    return format_summary(
        [
            *_describe_validation(before, after, num_sources=num_sources),
            *_describe_checks(before, after),
            *finished.describe_unreadable(),
            ("weights", str(finished.weights)),
            ("mlflow", finished.run.describe()),
            ("next", _next(config, finished, folders, is_labelled=is_labelled)),
        ]
    )


def _describe_validation(before: Metrics, after: Metrics, *, num_sources: int) -> list[Field]:
    loss = f"{before['loss']:.3f} before, {after['loss']:.3f} after{describe_padding(after)}"
    if not {"pair_accuracy", "key_rank"} & set(after):
        return [("error", f"{loss}: on frame features of {num_sources} held-out source videos (1 without learning)")]
    fields: list[Field] = []
    if "key_rank" in after:
        fields.append(
            (
                "keys",
                f"{before['key_rank']:.3f} before, {after['key_rank']:.3f} after: share of the training clips' keys "
                f"that are less alike than the own one, {num_sources} held-out source videos, chance 0.500",
            )
        )
    if "key_r2" in after:
        too_few = ": their mean is guessed as well, so there are too few source videos" if after["key_r2"] <= 0 else ""
        fields.append(("", f"R2 {before['key_r2']:.3f} before, {after['key_r2']:.3f} after{too_few}"))
    if "pair_accuracy" not in after:
        return [*fields, ("loss", loss)]
    accuracy = f"{before['pair_accuracy']:.3f} before, {after['pair_accuracy']:.3f} after"
    # Below 1 when a batch held clips of too few sources.
    few = after["negatives_per_positive"] < 0.995
    negatives = f"; {after['negatives_per_positive']:.2f} negatives a positive" if few else ""
    return [
        *fields,
        ("pairs", f"{accuracy}: accuracy on {num_sources} held-out source videos, chance 0.500"),
        ("loss", f"{loss}{negatives}"),
    ]


def _describe_checks(before: Metrics, after: Metrics) -> list[Field]:
    """The results of the checks and of the probe."""

    def change(name: str, digits: int = 3) -> str:
        """Before and after training; a run may have begun without this measurement."""
        began = f"{before[name]:.{digits}f} before, " if name in before else ""
        return f"{began}{after[name]:.{digits}f} after{interval(name)}"

    def interval(name: str) -> str:
        if f"{name}_low" not in after:
            return ""
        return f" (95 % interval {after[f'{name}_low']:.3f} to {after[f'{name}_high']:.3f})"

    fields: list[Field] = []
    of = {name.removeprefix("check/"): value for name, value in after.items()}
    if "check/key_rank" in after:
        fields.append(
            (
                "checks",
                f"keys {of['key_rank']:.3f}{interval('check/key_rank')}, in other colours "
                f"{of['key_rank_jittered']:.3f}, frames shuffled {of['key_rank_shuffled']:.3f}",
            )
        )
        if "key_own_time_share" in of:
            fields.append(
                ("", f"more like the key of its own time than of another of its video: {of['key_own_time_share']:.3f}")
            )
    if "check/pair_accuracy" in after:
        fields.append(
            (
                "checks",
                f"pairs {of['pair_accuracy']:.3f}{interval('check/pair_accuracy')}, in other colours "
                f"{of['pair_accuracy_jittered']:.3f}, frames shuffled {of['pair_accuracy_shuffled']:.3f}",
            )
        )
        if "match_share_other_time" in of:
            own, other = of["match_share_own_time"], of["match_share_other_time"]
            fields.append(
                ("", f"judged a match: frames of its own time {own:.3f}, of another time of its video {other:.3f}")
            )
    if "check/effective_rank" in after:
        rank, spread = change("check/effective_rank", 1), change("check/feature_std", 2)
        fields.append(("", f"features: effective rank {rank}; spread {spread}"))
    for suffix, what in (("", "as trained"), ("_own_statistics", "measured on the probe's videos (transductive)")):
        if f"probe/linear_top1{suffix}" in after:
            linear, neighbours = (change(f"probe/{kind}_top1{suffix}") for kind in ("linear", "knn"))
            fields.append(("probe", f"linear {linear}; neighbours {neighbours}; batch norms {what}"))
    return fields


def _next(config: TransferConfig, finished: FinishedRun, folders: Sequence[Path], *, is_labelled: bool) -> str:
    """The command that fine-tunes these weights; the weights describe the network and the clips."""
    if config.objective == "frame_regression":
        return (
            f"jobs/transfer.py or jobs/train.py with this model section and --inflate_from "
            f"{shlex.quote(str(finished.weights))}"
        )
    shards = [str(folder) for folder in folders] if is_labelled else ["LABELLED_SHARDS"]
    command = ["python", "jobs/train.py", "--init_from", str(finished.weights), "--model", "none", "--clip", "none"]
    command += ["--data.shards", *shards]
    if config.storage != TransferConfig.model_fields["storage"].default:
        command += ["--storage", str(config.storage)]
    return shlex.join(command)
