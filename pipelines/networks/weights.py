"""Weights files as the pipelines use them: their cards and config sections, and where a file is found."""

import re
from pathlib import Path

import torch
from pydantic import TypeAdapter

from pipelines.clips.config import ClipConfig
from pipelines.networks.config import ModelConfig
from pipelines.runtime.paths import input_path
from t3d_core.errors import UserError
from t3d_core.models import build_model
from t3d_core.models.cost import count_macs, count_parameters
from t3d_core.training.checkpoint import find_weights
from t3d_core.training.weights_card import WeightsCard

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def card_of(model: ModelConfig, clip: ClipConfig, *, class_names: tuple[str, ...]) -> WeightsCard:
    """The card of a network and its clips, as it will stand in the weights file."""
    return WeightsCard(
        model_kind=model.kind,
        model_arguments=model.arguments(),
        class_names=class_names,
        num_frames=clip.num_frames,
        frame_stride=clip.frame_stride,
        short_side=clip.short_side_pixels(),
        crop_size=clip.crop_size,
        short_video=clip.short_video,
        mean=clip.mean,
        std=clip.std,
        num_segments=clip.num_segments,
        seconds_per_frame=clip.seconds_per_frame,
    )


def model_config_of(card: WeightsCard) -> ModelConfig:
    """The model section that builds the network of a weights file."""
    return TypeAdapter(ModelConfig).validate_python({"kind": card.model_kind, **card.model_arguments})


def clip_config_of(card: WeightsCard) -> ClipConfig:
    """The clip section with which a weights file was trained."""
    return ClipConfig(**{name: getattr(card, name) for name in ClipConfig.model_fields})


def differences_of_networks(card: WeightsCard, other: WeightsCard) -> list[str]:
    """What two networks compute differently, in words: the shapes of their weights do not always show it."""
    mine, others = ({"kind": each.model_kind} | each.model_arguments for each in (card, other))
    same_result = {"transition_forms", "drop_rate"}
    names = sorted((mine.keys() | others.keys()) - same_result)
    return [f"{name} {mine.get(name)} / {others.get(name)}" for name in names if mine.get(name) != others.get(name)]


def check_network(card: WeightsCard, *, batch_size: int) -> None:
    """Check the shapes of the network in training before any work: empty clips go through it on torch's meta device.

    Args:
        card: describes the network and its clips.
        batch_size: clips of a worker; batch norm on maps of one position cannot train on a single clip.

    Raises:
        UserError: the network cannot have these sizes, or a clip or the batch is too small for it.
    """
    try:
        with torch.device("meta"):
            net = build_model(card.model_kind, num_classes=0, **card.model_arguments)
            clip_BCTHW = torch.empty(batch_size, 3, card.num_frames, card.crop_size, card.crop_size)
        net.eval().forward_features(clip_BCTHW)
    except UserError:
        raise
    except ValueError as error:  # PyTorch's own
        raise UserError(f"{card.model_kind} cannot be built of these sizes: {error}") from error
    try:
        net.train().forward_features(clip_BCTHW)
    except ValueError as error:
        raise UserError(
            f"{card.model_kind} cannot train on {batch_size} clip of {card.num_frames} x {card.crop_size} x "
            f"{card.crop_size} in each worker ({error}): raise global_batch_size or the size of the clip"
        ) from error


def check_classifier(card: WeightsCard, weights: Path, *, num_clips: int | None, num_crops: int) -> None:
    """Check that a network can score videos in these views; arguments are those of `check_views`.

    Raises:
        UserError: the network has no classes, or as `check_views`.
    """
    if not card.class_names:
        raise UserError(f"checkpoint {weights} has no classes (a transfer's student): train it first, jobs/train.py")
    check_views(card, weights, num_clips=num_clips, num_crops=num_crops)


def check_views(card: WeightsCard, weights: Path, *, num_clips: int | None, num_crops: int) -> None:
    """Check that a network was trained for these views of videos.

    Args:
        card: of the weights.
        weights: the file, for errors.
        num_clips: clips of every video; None for all that do not overlap.
        num_crops: squares of every clip.

    Raises:
        UserError: it was not.
    """
    if card.num_segments > 1 and num_clips is not None:
        raise UserError(
            f"num_clips {num_clips} is for networks that score clip by clip; {weights} takes "
            f"{card.num_segments} clips of a video at once (num_segments): leave num_clips out"
        )
    if card.mirrored_classes and num_crops == 10:
        one, other = card.mirrored_classes[0]
        raise UserError(
            f"num_crops {num_crops} also scores mirrored crops, and {weights} was trained to see {other!r} in a "
            f"mirrored {one!r} (augmentation.flip): give --num_crops 1 or 3"
        )


def costs_of(card: WeightsCard) -> dict[str, float]:
    """The costs of a network that runs log: multiply-adds of one forward pass of a clip (1e9), and parameters."""
    with torch.device("meta"):
        net = build_model(card.model_kind, num_classes=len(card.class_names), **card.model_arguments)
    macs = count_macs(net, (1, 3, card.num_frames, card.crop_size, card.crop_size))
    return {"model/gmacs": macs / 1e9, "model/parameters": float(count_parameters(net))}


def locate_weights(where: str, *, tracking_uri: str) -> Path:
    """Find the weights file that a user means.

    Args:
        where: a file, a checkpoint or run folder, the id of an MLflow run, `runs:/...` or `models:/...`.
        tracking_uri: the store in which runs and models are looked up.

    Raises:
        UserError: nothing is there.
    """
    if local := locate_local_weights(where):
        return local
    # Imported only here: MLflow takes seconds, and a file needs none of it.
    from pipelines.tracking.models import fetch_weights

    return fetch_weights(f"runs:/{where}" if _RUN_ID.fullmatch(where) else where, tracking_uri=tracking_uri)


def locate_local_weights(where: str) -> Path | None:
    """Find the weights file of a path, as `locate_weights`; None for what MLflow holds.

    Raises:
        UserError: the path leads to no weights file.
    """
    is_run_id = _RUN_ID.fullmatch(where) and not input_path(Path(where)).exists()
    return None if is_run_id or where.startswith(("runs:/", "models:/")) else find_weights(input_path(Path(where)))


def newest_run(storage: Path, *, setting: str = "checkpoint") -> Path:
    """Find the classifier of the training run in `storage` that ended last.

    Args:
        storage: folder with runs.
        setting: the setting that names another one, for errors.

    Raises:
        UserError: no run has ended there.
    """
    found = sorted(storage.glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{setting} is missing and {storage} holds no trained run: give --{setting}, or train first")
    return found[-1]
