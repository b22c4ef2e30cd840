"""Weights go to a file that describes itself, and come back as a network that is ready to use.

A weights file is a safetensors file whose metadata carries a `WeightsCard`: which network, which classes, which clips.
A checkpoint folder holds one weights file and `training_state.pt`, what a run needs to resume (optimiser, position).
"""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from t3d_core.datasets.unicode_form import nfc
from t3d_core.errors import UserError
from t3d_core.models import VideoNet, build_model
from t3d_core.training.weights_card import METADATA_KEY, WeightsCard, read_card

WEIGHTS_NAMES = ("model.safetensors", "student.safetensors")
TRAINING_STATE_NAME = "training_state.pt"


class LoadedModel(NamedTuple):
    """A network in `eval()` mode and the card it came with."""

    model: VideoNet
    card: WeightsCard


def save_weights(model: nn.Module, path: Path, *, card: WeightsCard) -> None:
    """Write `model`'s state and `card` to `path`: complete or not at all.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    try:
        # In memory first: what fails at the file is then an OSError, which safetensors would wrap.
        partial.write_bytes(save(state, metadata={METADATA_KEY: json.dumps(asdict(card))}))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_model(path: Path) -> LoadedModel:
    """Build the network that the weights file at `path` describes, with its weights, in `eval()` mode.

    Raises:
        UserError: as `read_card`; or the tensors are not those of the network that the card describes.
    """
    card, state = read_card(path), load_file(path)
    try:
        model = build_model(card.model_kind, num_classes=len(card.class_names), **card.model_arguments)
    except (TypeError, ValueError) as error:  # an argument or a kind of another version
        raise UserError(f"weights file {path} describes a {card.model_kind} that cannot be built: {error}") from error
    if difference := _first_difference(state, model.state_dict()):
        raise UserError(f"weights file {path} does not hold the {card.model_kind} that it describes: {difference}")
    model.load_state_dict(state)
    model.num_segments = card.num_segments
    return LoadedModel(model.eval(), card)


def initialize_from(model: nn.Module, path: Path, *, class_names: tuple[str, ...], replace_head: bool = False) -> bool:
    """Copy the weights at `path` into `model`; the head too when its classes are the same.

    Args:
        model: the network to be trained.
        path: a weights file; one of a network without a head needs nothing special.
        class_names: the classes that `model` is trained for.
        replace_head: keep the head of `model` if the weights are for other classes; otherwise that is an error.

    Returns:
        Whether the head was copied.

    Raises:
        UserError: the weights belong to another network, or to other classes.
    """
    card, state, wanted = read_card(path), load_file(path), model.state_dict()
    is_head_copied = [*map(nfc, card.class_names)] == [*map(nfc, class_names)]
    if not is_head_copied:
        if card.class_names and not replace_head:
            raise UserError(
                f"weights file {path} is for {_describe(card.class_names)}, the data have {_describe(class_names)}: "
                "give --replace_head true to start with a new head"
            )
        state, wanted = _without_head(state), _without_head(wanted)
    if difference := _first_difference(state, wanted):
        raise UserError(
            f"weights file {path} holds a {card.model_kind} with {card.model_arguments}, not the network to train "
            f"({difference}): give the model section the same kind and arguments, or none to use those of the weights"
        )
    model.load_state_dict(state, strict=False)
    return is_head_copied


def find_weights(path: Path) -> Path:
    """Find the weights file of `path`: the file itself, or the one in a checkpoint or run folder.

    Raises:
        UserError: nothing is there, or a folder holds no weights file.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path} does not exist: give a weights file, a checkpoint folder, runs:/... or models:/...")
    found = [path / name for name in WEIGHTS_NAMES if (path / name).is_file()]
    if not found:
        raise UserError(f"folder {path} holds none of {', '.join(WEIGHTS_NAMES)}: has this run finished?")
    return found[0]


def save_training_state(state: Mapping[str, Any], folder: Path) -> None:
    """Write what a run needs to resume, in addition to its weights, into `folder`.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    content = io.BytesIO()  # in memory first: PyTorch would turn what fails at the file into a RuntimeError
    torch.save(dict(state), content)
    (folder / TRAINING_STATE_NAME).write_bytes(content.getbuffer())


def load_training_state(folder: Path) -> dict[str, Any]:
    """Read what `save_training_state` wrote; tensors come to the CPU."""
    return torch.load(folder / TRAINING_STATE_NAME, map_location="cpu", weights_only=True)


def _without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


def _first_difference(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> str | None:
    """The first tensor that is missing, unknown or of another shape, in words."""
    for name, tensor in wanted.items():
        if name not in state:
            return f"expected {name} {tuple(tensor.shape)}, got none"
        if state[name].shape != tensor.shape:
            return f"expected {name} {tuple(tensor.shape)}, got {tuple(state[name].shape)}"
    unknown = next((name for name in state if name not in wanted), None)
    return unknown and f"got {unknown} {tuple(state[unknown].shape)}, expected none"


def _describe(class_names: tuple[str, ...]) -> str:
    shown = ", ".join(class_names[:3]) + (", ..." if len(class_names) > 3 else "")
    return f"{len(class_names)} classes ({shown})"
