"""A class name and an index become a short video whose class only its motion shows; a folder of them is a data set.

One textured object moves over a still background that it leaves on one side and enters on the other. The classes come
in pairs. The two of a pair show the same bag of frames in different order, so only the order of frames, that is
motion, tells them apart; the paper's claim is that T3D sees motion at short, middle and long range (3.1):

    range    class            path, k = frame / num_frames        the pair's bag of frames
    short    move_left        x = -k                              one turn along x: equal
             move_right       x = +k
    short    drift_slow       y = +-k                             one turn along y: equal unless 5 divides num_frames
             drift_fast       y = +-5 k
    middle   oscillate_slow   x = A sin(2 turns), 24 frames       one swing along x: equal in distribution
             oscillate_fast   x = A sin(5 turns), 9.6 frames
    long     right_then_down  x one turn, then y one turn         a cross: equal if num_frames is even
             down_then_right  y one turn, then x one turn

The start is anywhere on the frame, so the place of the object in a single frame is uniform for every class. A bag of
frames shows along which line the object went: that shows the pair at most (accuracy 1/2, chance 1/8), never the class.
Texture, colours, size, shape and background are drawn independently of the class.

Legend: T frames, H height, W width, C colours (RGB), 2 = (x, y).
"""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from t3d_core.datasets.records import VideoDataset, VideoRecord
from t3d_core.datasets.splits import carve_test_and_val, check_fractions
from t3d_core.errors import UserError
from t3d_core.video.storage import encode_video

CLASS_NAMES = (
    "down_then_right",
    "drift_fast",
    "drift_slow",
    "move_left",
    "move_right",
    "oscillate_fast",
    "oscillate_slow",
    "right_then_down",
)
MARKER_NAME = "synthetic.json"

# Part of the fingerprint: raise it whenever the same settings give other frames.
_GENERATOR_VERSION = 1
_FAST_DRIFT_TURNS = 5
_SLOW_SWINGS, _FAST_SWINGS = 2, 5

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SyntheticSettings:
    """What the videos are made of.

    Attributes:
        videos_per_class: Videos of each of the 8 classes.
        num_frames: Frames of a video, at least 12: the fast swing needs more than two frames a turn.
        height: Pixels, even (H.264), at least 32.
        width: Pixels, even, at least 32.
        fps: Frames per second.
        seed: Draws appearance, paths and splits.
        val_fraction: Share of the videos held out for validation.
        test_fraction: Share of the videos held out for testing.

    Raises:
        UserError: A value is out of range.
    """

    videos_per_class: int = 24
    num_frames: int = 48
    height: int = 72
    width: int = 96
    fps: float = 25.0
    seed: int = 0
    val_fraction: float = 0.125
    test_fraction: float = 0.25

    def __post_init__(self) -> None:
        for name, smallest in (("videos_per_class", 1), ("num_frames", 12), ("height", 32), ("width", 32), ("seed", 0)):
            if getattr(self, name) < smallest:
                raise UserError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        for name in ("height", "width"):
            if getattr(self, name) % 2:
                raise UserError(f"{name} must be even (H.264), got {getattr(self, name)}")
        if self.fps <= 0:
            raise UserError(f"fps must be above 0, got {self.fps}")
        check_fractions(test_fraction=self.test_fraction, val_fraction=self.val_fraction)

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change when the frames or the splits do."""
        text = json.dumps({"version": _GENERATOR_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def synthesize_frames(class_name: str, *, index: int, settings: SyntheticSettings) -> npt.NDArray[np.uint8]:
    """Draw one video.

    Args:
        class_name: One of `CLASS_NAMES`.
        index: Number of the video within its class, from 0.
        settings: Sizes and seed.

    Returns:
        frames_THWC, uint8 RGB. The same arguments give the same frames.
    """
    return np.stack(list(synthesize_sequence([class_name], index=index, settings=settings)))


def synthesize_sequence(
    class_names: Sequence[str], *, index: int, settings: SyntheticSettings
) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw one video in which the same object moves in several ways, each for `num_frames` frames.

    Args:
        class_names: Some of `CLASS_NAMES`; the same one again goes on with the motion.
        index: Number of the video within the class of the first motion, from 0.
        settings: Sizes and seed.

    Yields:
        frame_HWC, uint8 RGB. The same arguments give the same frames.
    """
    number = CLASS_NAMES.index(class_names[0]) * settings.videos_per_class + index
    end_2: npt.NDArray[np.float64] | None = None
    for class_name, repeats in itertools.groupby(class_names):
        path_T2 = object_path(
            class_name, num_frames=settings.num_frames, rng=np.random.default_rng([settings.seed, number, 0])
        )
        if end_2 is not None:
            path_T2 += end_2 - path_T2[0]
        end_2 = path_T2[-1]
        for _ in repeats:
            appearance_rng = np.random.default_rng([settings.seed, number, 1])
            yield from _render(path_T2, height=settings.height, width=settings.width, rng=appearance_rng)


def object_path(class_name: str, *, num_frames: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the path of the object; generators in the same state give the two classes of a pair the same bag of places.

    Returns:
        path_T2: x and y in turns of the frame: whole numbers of turns are the same place.
    """
    # All are drawn for every class, so that the paths of a pair start alike.
    start_2, phase, swing, sign = rng.random(2), rng.random(), rng.uniform(0.12, 0.2), rng.choice([-1.0, 1.0])
    k_T = np.arange(num_frames) / num_frames
    still_T = np.zeros(num_frames)
    first_T, second_T = np.minimum(2 * k_T, 1), np.maximum(2 * k_T - 1, 0)
    steps: dict[str, Callable[[], tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]] = {
        "move_left": lambda: (-k_T, still_T),
        "move_right": lambda: (k_T, still_T),
        "drift_slow": lambda: (still_T, sign * k_T),
        "drift_fast": lambda: (still_T, sign * _FAST_DRIFT_TURNS * k_T),
        "oscillate_slow": lambda: (swing * np.sin(2 * np.pi * (_SLOW_SWINGS * k_T + phase)), still_T),
        "oscillate_fast": lambda: (swing * np.sin(2 * np.pi * (_FAST_SWINGS * k_T + phase)), still_T),
        "right_then_down": lambda: (first_T, second_T),
        "down_then_right": lambda: (second_T, first_T),
    }
    return start_2 + np.stack(steps[class_name](), axis=1)


def write_synthetic(root: Path, settings: SyntheticSettings) -> VideoDataset:
    """Write the videos as `root/<class>/<class>_<index>.mp4`; existing ones are kept.

    Every video appears whole or not at all, so the next call resumes an interrupted one.

    Args:
        root: Folder of the videos, made if missing: new, empty, or of the same settings.
        settings: What to write.

    Returns:
        The data set: one fold, each video its own source, classes evenly in train, val and test.

    Raises:
        UserError: `root` holds videos of other settings, or other files.
    """
    root = Path(os.path.abspath(root))
    _claim_folder(root, settings)
    records = []
    for class_name in CLASS_NAMES:
        (root / class_name).mkdir(exist_ok=True)
        for index in range(settings.videos_per_class):
            video_id = f"{class_name}/{class_name}_{index:04d}.mp4"
            if not (root / video_id).exists():
                frames_THWC = synthesize_frames(class_name, index=index, settings=settings)
                _write_whole(frames_THWC, path=root / video_id, fps=settings.fps)
            records.append(VideoRecord(video_id, path=video_id, label=class_name, source=video_id, splits=("train",)))
    split_records = carve_test_and_val(
        records, test_fraction=settings.test_fraction, val_fraction=settings.val_fraction, seed=settings.seed
    )
    return VideoDataset(name="synthetic", class_names=CLASS_NAMES, records=split_records)


def _claim_folder(root: Path, settings: SyntheticSettings) -> None:
    """Write the marker, before the first video: videos of two settings never mix, not even after an interruption."""
    marker = root / MARKER_NAME
    content = {"fingerprint": settings.fingerprint(), "settings": asdict(settings)}
    root.mkdir(parents=True, exist_ok=True)
    if marker.exists():
        found = json.loads(marker.read_text())
        if found["fingerprint"] != content["fingerprint"]:
            raise UserError(
                f"{str(root)!r} holds synthetic videos of other settings: found {found}, asked for {content}. "
                f"Give another folder or delete this one"
            )
        return
    if any(not path.name.startswith(".") for path in root.iterdir()):
        raise UserError(f"{str(root)!r} holds files but no {MARKER_NAME}: give a new or empty folder")
    draft = root / f".{os.getpid()}-{MARKER_NAME}"
    draft.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(draft, marker)


def _write_whole(frames_THWC: npt.NDArray[np.uint8], *, path: Path, fps: float) -> None:
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    encode_video(frames_THWC, path=draft, fps=fps)
    os.replace(draft, path)


def _render(
    path_T2: npt.NDArray[np.float64], *, height: int, width: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Draw the object over the background at every place of the path: frames_THWC."""
    y_H1 = np.arange(height, dtype=np.float32)[:, None]
    x_1W = np.arange(width, dtype=np.float32)[None, :]
    background_colours, object_colours = _colours(rng)
    background_HWC = _paint(_texture(rng, size=width)(x_1W - width / 2, y_H1 - height / 2), background_colours)
    radius = float(rng.uniform(0.13, 0.2)) * min(height, width)
    texture, distance = _texture(rng, size=2 * radius), _SHAPES[rng.integers(len(_SHAPES))]

    x_T1W = _wrapped(x_1W - np.float32(width) * path_T2[:, None, None, 0].astype(np.float32), width)
    y_TH1 = _wrapped(y_H1 - np.float32(height) * path_T2[:, None, None, 1].astype(np.float32), height)
    # One pixel of soft edge: places between pixels show, and slow motion is smooth.
    cover_THW1 = np.clip(radius + 0.5 - distance(x_T1W, y_TH1), 0, 1)[..., None].astype(np.float32)
    object_THWC = _paint(texture(x_T1W, y_TH1), object_colours)
    frames_THWC = background_HWC + cover_THW1 * (object_THWC - background_HWC)
    return np.rint(frames_THWC).astype(np.uint8)


def _wrapped(offset: FloatArray, size: int) -> FloatArray:
    """Shortest way round: offsets in pixels to [-size / 2, size / 2)."""
    wrapped: FloatArray = np.mod(offset + size / 2, size) - size / 2
    return wrapped


def _colours(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Draw two colours for the background and two for the object, one pair dark and the other bright."""
    dark_2C, bright_2C = rng.uniform(0, 130, (2, 3)), rng.uniform(125, 255, (2, 3))
    pairs = (dark_2C, bright_2C) if rng.random() < 0.5 else (bright_2C, dark_2C)
    return pairs[0].astype(np.float32), pairs[1].astype(np.float32)


def _paint(share: FloatArray, colours_2C: FloatArray) -> FloatArray:
    """Mix two colours by a share in [0, 1]: (..., H, W) to (..., H, W, C)."""
    painted: FloatArray = colours_2C[0] + share[..., None] * (colours_2C[1] - colours_2C[0])
    return painted


def _texture(rng: np.random.Generator, *, size: float) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """Draw a texture: a function of x and y in pixels with values in [0, 1]; `size` is what it is drawn on."""
    kind = rng.choice(["ramp", "stripes", "checks", "rings", "clouds"])
    # Python floats all: a NumPy float64 would turn every frame into float64.
    angle, phase = rng.uniform(0, 2 * np.pi, 2).tolist()
    wave = 2 * np.pi / (size * float(rng.uniform(0.15, 0.45)))
    clouds = np.column_stack([rng.normal(0, wave / 2, (6, 2)), rng.uniform(0, 2 * np.pi, 6)]).tolist()
    cosine, sine = math.cos(angle), math.sin(angle)
    centre_x, centre_y = size * math.cos(phase) / 3, size * math.sin(phase) / 3

    def texture(x: FloatArray, y: FloatArray) -> FloatArray:
        along, across = x * cosine + y * sine, y * cosine - x * sine
        if kind == "ramp":
            level = along * 2 / size
        elif kind == "stripes":
            level = 3 * np.sin(wave * along + phase)
        elif kind == "checks":
            level = 5 * np.sin(wave * along + phase) * np.sin(wave * across)
        elif kind == "rings":
            level = 3 * np.sin(wave * np.hypot(x - centre_x, y - centre_y))
        else:
            level = sum(np.sin(u * x + v * y + offset) for u, v, offset in clouds)
        share: FloatArray = np.clip(0.5 + 0.5 * level, 0, 1).astype(np.float32)
        return share

    return texture


def _disc(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.hypot(x, y)


def _square(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(np.abs(x), np.abs(y)) * np.float32(1.13)


def _diamond(x: FloatArray, y: FloatArray) -> FloatArray:
    return (np.abs(x) + np.abs(y)) * np.float32(0.8)


# How far a pixel lies from the middle of the object; the factors give all shapes about the area of the disc.
_SHAPES = (_disc, _square, _diamond)
