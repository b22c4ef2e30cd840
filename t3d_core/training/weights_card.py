"""The description in a weights file: which network, which classes, which clips. Read without torch."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from t3d_core.datasets.unicode_form import nfc
from t3d_core.errors import UserError
from t3d_core.video.clip_sampling import Stride, stride_of_clip

METADATA_KEY = "t3d"


@dataclass(frozen=True)
class WeightsCard:
    """The description of a network that its weights file contains.

    Attributes:
        model_kind: a kind of `t3d_core.models.build_model`.
        model_arguments: the other arguments of `build_model`.
        class_names: label index -> name; empty for a network without a head.
        num_frames: frames of a clip.
        frame_stride: source frames from one clip frame to the next; None with `seconds_per_frame`.
        short_side: pixels to which the shorter side is scaled before the crop.
        crop_size: pixels of the square crop.
        short_video: what fills a clip when the video is shorter: `loop` or `repeat_last`.
        mean: of each RGB channel, on the 0..1 scale.
        std: of each RGB channel, on the 0..1 scale.
        num_segments: clips of a video that make one example (`VideoNet.num_segments`).
        datasets: data sets whose labelled videos it was trained on last; empty if there are none.
        fold: the official split list that it was trained on.
        run_id: the tracked run that trained it.
        seconds_per_frame: seconds from one clip frame to the next; None with `frame_stride`.
    """

    model_kind: str
    model_arguments: dict[str, Any]
    class_names: tuple[str, ...]
    num_frames: int
    frame_stride: int | None
    short_side: int
    crop_size: int
    short_video: Literal["loop", "repeat_last"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_segments: int = 1
    datasets: tuple[str, ...] = ()
    fold: int | None = None
    run_id: str | None = None
    seconds_per_frame: float | None = None

    def stride_at(self, fps: float) -> Stride:
        """The distance of clip frames in a video of `fps` frames a second, in frames of that video."""
        return stride_of_clip(self.frame_stride, self.seconds_per_frame, fps=fps)

    def describe_distance(self) -> str:
        """How far clip frames are apart, in words."""
        if self.frame_stride is not None:
            return f"stride {self.frame_stride}"
        return f"{self.seconds_per_frame:g} s a frame"

    def places_of(self, class_names: Sequence[str]) -> list[int]:
        """Give the place among `class_names` of the card of each of these names; they are compared in NFC.

        Raises:
            UserError: the network does not know some of them.
        """
        places = {nfc(name): place for place, name in enumerate(self.class_names)}
        unknown = [name for name in class_names if nfc(name) not in places]
        if unknown:
            near = difflib.get_close_matches(nfc(unknown[0]), places, n=1)
            hint = f" (it knows {near[0]!r})" if near else ""
            raise UserError(
                f"the network does not know {len(unknown)} of the {len(class_names)} classes, such as {unknown[0]!r}"
                f"{hint}: evaluate it on its own data set, or give the classes the names of the network"
            )
        return [places[nfc(name)] for name in class_names]


def read_card(path: Path) -> WeightsCard:
    """Read the card of the weights file at `path`.

    Raises:
        UserError: the file is damaged or was not written by `save_weights`.
    """
    try:
        with safe_open(path, framework="numpy") as weights:
            metadata = weights.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights file {path} cannot be read: {error}") from error
    try:
        return WeightsCard(**_with_tuples(json.loads(metadata[METADATA_KEY])))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(
            f"weights file {path} does not describe its network: give a file that this project wrote"
        ) from error


def _with_tuples(value: Any) -> Any:
    """Turn the lists of JSON, which has no tuples, back into tuples."""
    if isinstance(value, dict):
        return {name: _with_tuples(entry) for name, entry in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
