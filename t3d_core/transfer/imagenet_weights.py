"""A model's name or a file becomes torchvision's `state_dict` of a 2D network trained on ImageNet."""

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision

from t3d_core.errors import UserError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def downloaded_state(model: str, *, cure: str) -> dict[str, Any]:
    """Return torchvision's own weights of `model`, from its cache or its download.

    Args:
        model: Name of a torchvision model.
        cure: What a user may do instead without a network; only used in the error.

    Raises:
        UserError: They cannot be downloaded.
    """
    entry = torchvision.models.get_model_weights(model).DEFAULT
    try:
        return with_current_names(entry.get_state_dict(progress=False))
    except OSError as error:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
        raise UserError(
            f"the ImageNet weights of {model} cannot be downloaded ({error}): fetch {entry.url} elsewhere and put it "
            f"at {cached} on every node, or {cure}"
        ) from error


def read_state(path: Path, *, what: str) -> dict[str, Any]:
    """Return what `torch.save(state_dict)` wrote to `path`; errors call it `what`.

    Raises:
        UserError: The file is missing, damaged or something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        # torch's own words advise to load without `weights_only`: not repeated here.
        raise UserError(
            f"{what} {path} cannot be read ({type(error).__name__}): give a file of torch.save(state_dict)"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{what} {path} hold a {type(state).__name__}: give a file of torch.save(state_dict)")
    return state


def with_current_names(state: dict[str, Any]) -> dict[str, Any]:
    """Rename the entries of DenseNet files from before PyTorch 0.4.1, which torchvision still serves."""
    return {re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name): v for name, v in state.items()}
