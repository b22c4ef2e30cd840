"""The chain of trainings behind a network: each run adds its step; tests of videos that it trained on are refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.runtime.named_folder import read_record
from pipelines.runtime.paths import input_path
from pipelines.shards.folder import describe_shards
from pipelines.shards.index import ShardIndex
from pipelines.shards.video_names import listed_videos, names_of_videos
from t3d_core.errors import UserError
from t3d_core.training.lineage import EvaluatedVideos, TrainingStep, describe_lineage, digest_of, sketch_of
from t3d_core.training.weights_card import read_card, steps_of
from t3d_core.transfer.inflation import SOURCES

_RECORD = "run.json"  # of the folder of a run


@dataclass(frozen=True)
class Lineage:
    """The chain of some weights, as a user named them.

    Attributes:
        weights: the weights, for messages.
        steps: the oldest first; empty for weights that no run of this project trained.
    """

    weights: str
    steps: tuple[TrainingStep, ...] = ()


def lineage_of(init_from: Path | None, inflate_from: str | None) -> Lineage:
    """The chain of the weights that a run starts from.

    2D weights have no card. Those of a twin are known while they lie in the folder of their run.
    """
    if init_from is not None:
        return Lineage(str(init_from), read_card(init_from).lineage)
    if inflate_from is None:
        return Lineage("random weights")
    folders = (
        () if inflate_from in SOURCES else input_path(Path(inflate_from)).parents[:2]
    )  # the second of a checkpoint
    records = filter(None, (read_record(folder / _RECORD) for folder in folders))
    return Lineage(inflate_from, steps_of(next(records, {}).get("lineage", ())))


def step_of(
    stage: str,
    folders: Sequence[Path],
    index: ShardIndex,
    *,
    fold: int,
    is_labelled: bool,
    held_out: ShardIndex | None = None,
    holdout_seed: int | None = None,
) -> TrainingStep:
    """The step that a run adds to a chain.

    Args:
        stage: `train` or `transfer`.
        folders: prepared shards.
        index: the rows that it sees.
        fold: official split list.
        is_labelled: whether it learns from labels.
        held_out: the rows held out of split `train` for validation; None if the fold has a split `val`.
        holdout_seed: their seed.
    """
    described, names = [describe_shards(folder) for folder in folders], names_of_videos(folders)
    seen = set(index.video_id_N)
    return TrainingStep(
        stage,
        tuple(each["dataset"] for each in described),
        fold,
        is_labelled,
        fingerprints=tuple(each["fingerprint"][:12] for each in described),
        holdout_seed=None if held_out is None else holdout_seed,
        held_out=None if held_out is None else digest_of(names[video_id] for video_id in held_out.video_id_N),
        sketch=sketch_of(
            *([name for video_id, name in names_of_videos([folder]).items() if video_id in seen] for folder in folders)
        ),
    )


def evaluated_by_run(folders: Sequence[Path], val_index: ShardIndex, *, fold: int) -> EvaluatedVideos:
    """The videos on which a training run will be tested, and those on which it validates."""
    names = names_of_videos(folders)
    return EvaluatedVideos(
        _datasets(folders),
        fold,
        frozenset(names[video_id] for video_id in listed_videos(folders, fold=fold, splits=["test"])),
        frozenset(names[video_id] for video_id in val_index.video_id_N),
    )


def evaluated_by_test(folders: Sequence[Path], index: ShardIndex, *, fold: int) -> EvaluatedVideos:
    """The videos that a test scores."""
    names = names_of_videos(folders)
    return EvaluatedVideos(_datasets(folders), fold, frozenset(names[video_id] for video_id in index.video_id_N))


def check_lineage(lineage: Lineage, videos: EvaluatedVideos) -> str | None:
    """Refuse weights that some evaluated videos were trained on; describe those that saw some without labels.

    Returns:
        The warning, or None when no step saw a test video.

    Raises:
        UserError: a step of the chain learned from the labels of evaluated videos.
    """
    chain, fold = describe_lineage(lineage.steps), videos.fold
    for step in lineage.steps:
        if not videos.are_trained_on(step):
            continue
        common = ", ".join(videos.in_common(step))
        if step.fold == fold:
            raise UserError(
                f"{lineage.weights} was trained on videos of {common} that fold {fold} tests or validates, because the "
                "data set was split in another way then: prepare it with the same splits, or take other weights. "
                f"Chain of the weights: {chain}"
            )
        raise UserError(
            f"{lineage.weights} was trained on fold {step.fold} of {common}, and with it on test videos of fold "
            f"{fold}: take fold {step.fold} (--data.fold {step.fold}), or the network of fold {fold}. Chain of the "
            f"weights: {chain}"
        )
    seen = [step for step in lineage.steps if videos.are_seen(step)]
    if not seen:
        return None
    return (
        f"the weights have seen videos of the test of {', '.join(videos.datasets)}, fold {fold}, before: "
        f"{'; '.join(step.describe() for step in seen)}. Chain of the weights: {chain}"
    )


def check_holdout(lineage: Lineage, step: TrainingStep) -> str | None:
    """Refuse weights that were trained on what this run holds out.

    Args:
        lineage: of the weights that the run starts from.
        step: of the run.

    Returns:
        A warning if a step of an older version does not record what it held out; otherwise None.

    Raises:
        UserError: a step of the chain held out other videos of the same fold.
    """
    if step.held_out is None:
        return None
    for known in lineage.steps:
        if not known.is_labelled or known.fold != step.fold or not set(known.datasets) & set(step.datasets):
            continue
        if known.held_out is not None and known.held_out != step.held_out:
            difference, cure = _other_holdout(known, step)
            raise UserError(
                f"{lineage.weights} was trained with another held-out part ({difference}), so this run would validate "
                f"on videos that it was trained on: {cure}. Chain of the weights: {describe_lineage(lineage.steps)}"
            )
        if not known.sketch:
            return (
                f"{lineage.weights} does not record which videos it held out, because an older version trained it: it "
                "may have been trained on the videos that this run validates on, unless data.holdout_seed is the seed "
                "of that run"
            )
    return None


def _other_holdout(known: TrainingStep, step: TrainingStep) -> tuple[str, str]:
    """Why two steps hold out other videos of the same fold, and what to do about it."""
    cure = "start from other weights, or train on the same data"
    if sorted(known.datasets) != sorted(step.datasets):
        return f"data sets {' + '.join(known.datasets)}, here {' + '.join(step.datasets)}", cure
    if sorted(known.fingerprints) != sorted(step.fingerprints):
        then, now = (" + ".join(each.fingerprints) for each in (known, step))
        return f"the data was prepared in another way: fingerprint {then}, here {now}", cure
    if known.holdout_seed != step.holdout_seed:
        return (
            f"data.holdout_seed {known.holdout_seed}, here {step.holdout_seed}",
            f"give --data.holdout_seed {known.holdout_seed} and the same data.holdout_fraction and data.class_share",
        )
    return (
        f"data.holdout_seed {step.holdout_seed} as here, but another data.holdout_fraction or data.class_share, or "
        "other videos in the shards",
        f"{cure}, data.holdout_fraction and data.class_share",
    )


def _datasets(folders: Sequence[Path]) -> tuple[str, ...]:
    return tuple(describe_shards(folder)["dataset"] for folder in folders)
