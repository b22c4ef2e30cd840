"""The whole path without own videos and without a trained network: new synthetic videos are classified and explained.

The network is the newest one that knows the synthetic motions. If there is none, `train` makes it: the quick
start's network and clips, with the settings below.

STORAGE/data/demo/*.mp4        the videos, which no recipe trains on
STORAGE/predict-demo-TIME/     what `predict` makes of them
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.predict.config import PredictConfig
from pipelines.predict.job import run_predict
from pipelines.predict.video_files import folder_of
from pipelines.runtime.files import whole_file
from pipelines.runtime.paths import base_folder, new_name, output_path
from pipelines.settings.build import changed
from pipelines.settings.terminal import format_summary, seen_from_here
from t3d_core.datasets.synthetic import CLASS_NAMES, SyntheticSettings, synthesize_sequence
from t3d_core.errors import UserError
from t3d_core.training.weights_card import read_card
from t3d_core.video.playable import write_playable

# Mirrored, a motion to the left is one to the right: the network is to tell them apart. With AdamW and 20 epochs it
# learned that on every machine tried; with the quick start's optimizer and 12 epochs it did not on some.
_TRAIN = (
    *("--name", "demo", "--augmentation.flip", "false", "--epochs", "20"),
    *("--optimizer.kind", "adamw", "--optimizer.lr", "0.003"),
)
_SEED = 20261130  # of no recipe
_SETTINGS = SyntheticSettings(videos_per_class=1, height=240, width=320, seed=_SEED)
_SHORT = ("move_left", "drift_fast", "oscillate_fast", "right_then_down")
_LONG_NAME, _LONG = "oscillate_fast_then_drift_fast", ("oscillate_fast",) * 5 + ("drift_fast",) * 5
_SHOWN = {"stride_seconds": 0.25, "top": 3, "timeline": True, "annotate": True, "explain": True}


def run_demo(config: PredictConfig, *, train: Callable[[Sequence[str]], str]) -> str:
    """Show predictions, timelines, annotated copies and explanations of synthetic videos; return the closing summary.

    Args:
        config: where things lie; the demo has its own inputs and model.
        train: runs jobs/train.py with these arguments, and returns its closing summary.

    Raises:
        UserError: the network cannot be trained, or as `run_predict`.
    """
    _print(
        "The videos of this demo are synthetic: one object moves over a still background, and the class is its motion."
    )
    weights = find_demo_weights(base_folder() / config.storage) or _trained(config, train)
    videos = write_demo_videos(output_path(config.storage) / "data" / "demo")
    output = output_path(config.output or config.storage / new_name("predict-demo"))
    places = {"inputs": list(map(str, videos)), "model": str(weights), "output": str(output)}
    shown = changed(changed(config, {"demo": False}), {**places, **_SHOWN})
    options = " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in _SHOWN.items())
    _print(
        f"\npython jobs/predict.py {shlex.quote(str(videos[0].parent))} --model {shlex.quote(str(weights))} {options}\n"
    )
    _print(f"{run_predict(shown)}\n")
    return _closing(output, videos)


def find_demo_weights(storage: Path) -> Path | None:
    """The newest classifier of a run in `storage` whose classes are the synthetic motions; None without any."""
    found = sorted(storage.glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in found if _knows_the_motions(path)), None)


def write_demo_videos(folder: Path) -> list[Path]:
    """Write short videos of one motion each, named after it, and a long one of two; those that exist are kept."""
    sequences = {name: (name,) for name in _SHORT} | {_LONG_NAME: _LONG}
    paths = [folder / f"{name}.mp4" for name in sequences]
    for path, class_names in zip(paths, sequences.values(), strict=True):
        if not path.exists():
            frames = synthesize_sequence(class_names, index=0, settings=_SETTINGS)
            with whole_file(path) as partial:
                write_playable(frames, path=partial, fps=_SETTINGS.fps)
    return paths


def _knows_the_motions(path: Path) -> bool:
    try:
        return read_card(path).class_names == CLASS_NAMES
    except UserError:
        return False


def _trained(config: PredictConfig, train: Callable[[Sequence[str]], str]) -> Path:
    arguments = [*_TRAIN, "--storage", str(config.storage), "--tracking.experiment", config.tracking.experiment]
    if config.tracking.uri is not None:
        arguments += ["--tracking.uri", config.tracking.uri]
    _print(
        "No network in the folder of runs knows these motions yet. A small T3D (141,000 parameters) learns them now, "
        "once: some minutes on 2 CPU cores. If you interrupt it, the next start resumes.\n"
        f"\npython jobs/train.py {shlex.join(arguments)}\n"
    )
    _print(train(arguments))
    if weights := find_demo_weights(base_folder() / config.storage):
        return weights
    raise UserError(f"the training of the demo's network left no weights in {config.storage}/demo")


def _closing(output: Path, videos: Sequence[Path]) -> str:
    predicted = pq.read_table(output / "predictions.parquet", columns=["video", "label"]).to_pylist()
    label_of = {row["video"]: row["label"] for row in predicted}
    short = [path for path in videos if path.stem in _SHORT]
    num_right = sum(label_of.get(str(path)) == path.stem for path in short)
    folder = folder_of(output, str(videos[-1]))
    return format_summary(
        [
            ("right", f"{num_right} of {len(short)} short videos, whose names are their motions; chance is 1 of 8"),
            ("open", f"{folder}/annotated.mp4, timeline.png, explanation.png, explanation.mp4"),
            ("own videos", "this network knows these motions only; README.md shows how to train on yours, and then"),
            ("next", "python jobs/predict.py VIDEO --model runs/mine --timeline --annotate --explain"),
        ]
    )


def _print(text: str) -> None:
    print(seen_from_here(text), flush=True)
