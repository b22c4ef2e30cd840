"""The description in a weights file: which network, which classes, which clips. Read without torch."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from t3d_core.datasets.unicode_form import nfc
from t3d_core.errors import UserError
from t3d_core.training.lineage import TrainingStep
from t3d_core.video.clip_sampling import ClipView

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
        lineage: the trainings behind the weights, the oldest first.
        run_id: the tracked run that trained it.
        seconds_per_frame: seconds from one clip frame to the next; None with `frame_stride`.
        mirrored_classes: pairs of classes that change sides in a mirrored clip, if training gave such a clip the label
            of the other class.
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
    lineage: tuple[TrainingStep, ...] = ()
    run_id: str | None = None
    seconds_per_frame: float | None = None
    mirrored_classes: tuple[tuple[str, str], ...] = ()

    def clip_view(self) -> ClipView:
        """How the network sees a clip."""
        return ClipView(**{field.name: getattr(self, field.name) for field in fields(ClipView)})

    def describe_distance(self) -> str:
        """How far clip frames are apart, in words."""
        if self.frame_stride is not None:
            return f"stride {self.frame_stride}"
        return f"{self.seconds_per_frame:g} s a frame"

    def of_run(self, run_id: str) -> "WeightsCard":
        """The card with the tracked run that trains the network: that of the last step."""
        last = tuple(replace(step, run_id=run_id) for step in self.lineage[-1:])
        return replace(self, run_id=run_id, lineage=(*self.lineage[:-1], *last))

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
        raise UserError(
            f"weights file {path} cannot be read: {error}; give a whole .safetensors file that this project wrote"
        ) from error
    try:
        return _card_of(json.loads(metadata[METADATA_KEY]))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise UserError(
            f"weights file {path} does not describe its network: give a file that this project wrote"
        ) from error


def steps_of(described: Iterable[Mapping[str, Any]]) -> tuple[TrainingStep, ...]:
    """The steps of a chain, from JSON."""
    return tuple(TrainingStep(**_with_tuples(step)) for step in described)


def _card_of(described: dict[str, Any]) -> WeightsCard:
    """The card of its JSON; an older version kept the data of the last training alone, which becomes one step."""
    datasets, fold = described.pop("datasets", ()), described.pop("fold", None)
    lineage = steps_of(described.pop("lineage", ()))
    if datasets and not lineage:
        lineage = (TrainingStep("train", tuple(datasets), fold, is_labelled=True, run_id=described.get("run_id")),)
    return WeightsCard(**_with_tuples(described), lineage=lineage)


def _with_tuples(value: Any) -> Any:
    """Turn the lists of JSON, which has no tuples, back into tuples."""
    if isinstance(value, dict):
        return {name: _with_tuples(entry) for name, entry in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
