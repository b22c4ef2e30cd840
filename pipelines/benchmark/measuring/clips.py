"""The videos of a benchmark: those in the user's folders, and generated ones."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipelines.runtime.paths import input_path
from t3d_core.video.container import VideoError, open_video
from t3d_core.video.decoding import VideoInfo, probe

_SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}
_FPS = 25
_NUM_GENERATED = 4
_GENERATED_FRAMES, _GENERATED_HEIGHT, _GENERATED_WIDTH = 250, 256, 340  # as a clip of Kinetics at 25 frames a second


class BenchmarkClip(NamedTuple):
    """A video file, its properties, its size, and the index of its first video stream."""

    path: Path
    info: VideoInfo
    num_bytes: int
    stream_index: int

    @property
    def size_text(self) -> str:
        """Such as `340x256`."""
        return f"{self.info.width}x{self.info.height}"


class FoundClips(NamedTuple):
    """Clips to measure, and those left out: name -> reason."""

    clips: list[BenchmarkClip]
    left_out: dict[str, str]


def find_clips(folders: Sequence[Path], *, clips_per_folder: int) -> FoundClips:
    """Take videos from each folder and its subfolders, evenly spread over the sorted names."""
    clips, left_out = [], {}
    for folder in folders:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not paths:
            left_out[str(folder)] = "not on this machine" if not folder.is_dir() else "contains no videos"
        chosen = np.unique(np.linspace(0, len(paths) - 1, min(clips_per_folder, len(paths))).round().astype(int))
        for path in (paths[i] for i in chosen):
            try:
                clips.append(describe_clip(path))
            except VideoError as error:
                left_out[path.name] = str(error)
    return FoundClips(clips, left_out)


class FoundSources(NamedTuple):
    """Videos by the name of their folder, and lines that report their number and what is missing."""

    clips_of: dict[str, list[BenchmarkClip]]
    notes: list[str]


def find_sources(folders: Sequence[Path], temporary: Path, *, clips_per_folder: int) -> FoundSources:
    """Take videos from each folder; if none has any, generate some in `temporary`.

    Args:
        folders: as a user gives them.
        temporary: for generated videos.
        clips_per_folder: at most.
    """
    sources, notes = {}, []
    for place in folders:
        found = find_clips([input_path(place)], clips_per_folder=clips_per_folder)
        notes += [f"left out: {name}: {reason}" for name, reason in found.left_out.items()]
        if found.clips:
            sources[place.name] = found.clips
    if not sources:
        size = {"height": _GENERATED_HEIGHT, "width": _GENERATED_WIDTH}
        paths = write_moving_videos(temporary, num_videos=_NUM_GENERATED, num_frames=_GENERATED_FRAMES, **size)
        sources["generated"] = [describe_clip(path) for path in paths]
    notes += [f"{name}: {len(clips)} source videos" for name, clips in sources.items()]
    return FoundSources(sources, notes)


def describe_clip(path: Path) -> BenchmarkClip:
    """Probe a file.

    Raises:
        VideoError: it cannot be used, or is rotated: not all peers turn it upright.
    """
    info = probe(path)
    if info.rotation_degrees:
        raise VideoError(f"rotated by {info.rotation_degrees} degrees, which not all peers undo")
    with open_video(path) as video:
        return BenchmarkClip(path, info, path.stat().st_size, video.stream.index)


def write_moving_video(path: Path, *, num_frames: int, height: int, width: int, seed: int) -> None:
    """Write textures that move over each other, with a little camera noise, as H.264 with one key frame.

    It uses x264's `medium` at crf 20, as uploads do: as many bytes as detail and motion need.
    """
    options = {"preset": "medium", "crf": "20", "x264-params": f"keyint={num_frames}:scenecut=0:threads=1"}
    with av.open(os.fspath(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_FPS, options={**options, "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame_HWC in _moving_frames(num_frames, height, width, np.random.default_rng(seed)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))


def write_moving_videos(folder: Path, *, num_videos: int, num_frames: int, height: int, width: int) -> list[Path]:
    """Write such videos with seeds 0, 1, ... and return their paths."""
    paths = [folder / f"{seed}.mp4" for seed in range(num_videos)]
    for seed, path in enumerate(paths):
        write_moving_video(path, num_frames=num_frames, height=height, width=width, seed=seed)
    return paths


def _moving_frames(
    num_frames: int, height: int, width: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.uint8]]:
    """A background that pans by fractions of a pixel, six textured squares that cross it, noise; uint8 frame_HWC."""
    background_HWC = _texture(height * 2, width * 2, rng)
    side = height // 4
    squares = [_texture(side, side, rng) for _ in range(6)]
    position, step = rng.uniform(0, 1, (6, 2)), rng.uniform(-0.02, 0.02, (6, 2))
    noise_HW1 = rng.normal(0, 3, (height * 2, width * 2, 1)).astype(np.float32)
    for index in range(num_frames):
        share = index / num_frames
        frame_HWC = _window(background_HWC, share * height / 2, share * width * 0.7, height, width)
        for square_HWC, at in zip(squares, (position + index * step) % 1, strict=True):
            y, x = (at * (height - side, width - side)).astype(int)
            frame_HWC[y : y + side, x : x + side] = square_HWC
        y, x = rng.integers(height), rng.integers(width)  # new noise in every frame at the cost of a copy
        frame_HWC += noise_HW1[y : y + height, x : x + width]
        yield frame_HWC.clip(0, 255).astype(np.uint8)


def _window(
    picture_HWC: npt.NDArray[np.float32], top: float, left: float, height: int, width: int
) -> npt.NDArray[np.float32]:
    """The rectangle at a place between pixels, interpolated linearly."""
    y, x = int(top), int(left)
    down, right = np.float32(top - y), np.float32(left - x)
    rows_HWC = picture_HWC[y : y + height + 1, x : x + width + 1]
    columns_HWC = rows_HWC[:-1] + down * (rows_HWC[1:] - rows_HWC[:-1])
    return columns_HWC[:, :-1] + right * (columns_HWC[:, 1:] - columns_HWC[:, :-1])


def _texture(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Smooth grain at every scale, pixels up to the whole picture, brightness over colour; float frame_HWC."""
    texture_HWC = np.full((height, width, 3), 128, np.float32)
    for log_scale in range(max(1, height.bit_length() - 1)):
        rows, columns = (height >> log_scale) + 1, (width >> log_scale) + 1
        grain_HWC = rng.normal(size=(rows, columns, 1)) + 0.3 * rng.normal(size=(rows, columns, 3))
        grain_1CHW = torch.from_numpy(grain_HWC.astype(np.float32)).permute(2, 0, 1)[None]
        smooth_1CHW = nn.functional.interpolate(grain_1CHW, (height, width), mode="bilinear")
        texture_HWC += (3 + 2 * log_scale) * smooth_1CHW[0].permute(1, 2, 0).numpy()
    return texture_HWC
