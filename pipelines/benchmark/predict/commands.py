"""Each case as a command that a user types: `jobs/predict.py`, the loops of the peers."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.benchmark.predict.config import PredictSuiteConfig
from pipelines.benchmark.predict.networks import (
    NUM_CLASSES,
    NetworkCost,
    write_ours,
    write_torchvision,
    write_videomae,
)
from t3d_core.video.sizes import default_short_side

OURS, ON_RAY = "ours, in process", "ours, on Ray"
TORCHCODEC, DECORD = "torchvision's r3d_18, torchcodec", "torchvision's r3d_18, decord"
HUGGING_FACE = "Hugging Face's pipeline, VideoMAE-S"
SERVED = "ours, served"
OUR_CASES, LOOPS = (OURS, ON_RAY), (TORCHCODEC, DECORD)
CASES = (*OUR_CASES, *LOOPS, HUGGING_FACE)

_PREDICT = Path(__file__).parents[3] / "jobs" / "predict.py"
_DECODER_OF = {TORCHCODEC: "torchcodec", DECORD: "decord"}


class Command(NamedTuple):
    """The words of a command, and the file to which it appends a line for each video."""

    words: list[str]
    answers: Path


class Networks(NamedTuple):
    """The networks on disk, what they cost, and why one of them could not be written: case -> reason."""

    folder: Path
    cost_of: Mapping[str, NetworkCost]
    missing: Mapping[str, str]

    @property
    def ours(self) -> Path:
        """The weights file of our network."""
        return self.folder / "ours.safetensors"

    @property
    def torchvision(self) -> Path:
        """The weights file of r3d_18."""
        return self.folder / "r3d_18.pt"

    @property
    def videomae(self) -> Path:
        """The folder of VideoMAE-S."""
        return self.folder / "videomae"


def write_networks(folder: Path, config: PredictSuiteConfig) -> Networks:
    """Write the networks of all cases."""
    networks = Networks(folder, {}, {})
    cost_of = dict.fromkeys(OUR_CASES, write_ours(networks.ours, config))
    cost_of |= dict.fromkeys(LOOPS, write_torchvision(networks.torchvision, config))
    try:
        cost_of[HUGGING_FACE] = write_videomae(networks.videomae, config)
    except ImportError as error:
        return Networks(folder, cost_of, {HUGGING_FACE: str(error)})
    return Networks(folder, cost_of, {})


def command_of(
    case: str, videos: Sequence[Path], networks: Networks, config: PredictSuiteConfig, *, output: Path
) -> Command:
    """The command of a case.

    Args:
        case: one of the names above.
        videos: what it predicts.
        networks: where the networks are.
        config: the clips.
        output: a new folder for its files.
    """
    if case in OUR_CASES:
        num_workers = config.num_workers if case == ON_RAY else 0
        options: dict[str, object] = {
            "model": networks.ours,
            "batch_size": config.batch_size,
            "num_workers": num_workers,
        }
        return _predict(videos, options, output=output / "predictions")
    answers = output / "answers.jsonl"
    request = {"videos": list(map(str, videos)), "answers": str(answers)}
    if case == HUGGING_FACE:
        return Command(_loop("huggingface_loop", request | {"model": str(networks.videomae)}), answers)
    clips = {name: getattr(config, name) for name in ("num_frames", "frame_stride", "crop_size", "batch_size")}
    clips |= {"short_side": default_short_side(config.crop_size), "num_classes": NUM_CLASSES}
    network = {"decoder": _DECODER_OF[case], "weights": str(networks.torchvision)}
    return Command(_loop("torchvision_loop", request | clips | network), answers)


def _predict(videos: Sequence[Path], options: dict[str, object], *, output: Path) -> Command:
    given = options | {"output": output, "use_gpu": "false"}  # the peers use none
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return Command([sys.executable, str(_PREDICT), *map(str, videos), *words], output / "predictions.jsonl")


def _loop(module: str, request: dict) -> list[str]:
    return [sys.executable, "-m", f"pipelines.benchmark.predict.{module}", json.dumps(request)]
