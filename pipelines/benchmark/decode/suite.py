"""Training samples from video files and from shards, on one core, compared with decord and torchcodec (paper 4.4).

A sample is 32 frames at stride 2 from a random place, scaled to 256 pixels on the short side and cropped to the centre
224. All decoders read the same places. Before the timing, our frames are compared with a full decode by a plain PyAV
loop, at the file's own size. They must be equal bit for bit. Time is processor time of all threads.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch

from pipelines.benchmark.decode.config import DecodeSuiteConfig
from pipelines.benchmark.decode.report import ClipResult, StoredResult, report_decoding
from pipelines.benchmark.decode.stored import StoredClip, measure_psnr, store_clip
from pipelines.benchmark.measuring.clips import BenchmarkClip, describe_clip, find_clips, write_moving_video
from pipelines.benchmark.measuring.peers import (
    PLAIN,
    Decoder,
    Frames,
    Indices,
    Size,
    describe_versions,
    segment_decoders,
    source_decoders,
)
from pipelines.benchmark.measuring.rows import SuiteReport, alternating_seconds, describe_machine, median_rates
from pipelines.runtime.paths import input_path
from t3d_core.errors import UserError
from t3d_core.video.clip_sampling import random_clip
from t3d_core.video.container import VideoSource
from t3d_core.video.cropping import Crop, center_crop
from t3d_core.video.decoding import decode_frames
from t3d_core.video.sizes import resized_size

GENERATED = "generated.mp4"
MAX_DIFFERENCE = 10.0  # mean grey levels; scaling differs by 1 or 2, a neighbouring frame by 5


class _Cases:
    """The cases timed in turns for one video: (part, decoder) -> all its samples; and failures with reasons."""

    def __init__(self, *, crop_size: int) -> None:
        self.runs: dict[tuple[str, str], Callable[[], object]] = {}
        self.failures: dict[str, str] = {}
        self.first_sample: dict[tuple[str, str], Frames] = {}
        self._crop_size = crop_size

    def add(
        self, part: str, decoders: dict[str, Decoder], source: VideoSource, places: Sequence[Indices], size: Size
    ) -> None:
        """Add the decoders whose first sample works."""
        for name, decode in decoders.items():
            sample = partial(_sample, decode, source, size, center_crop(*size, crop_size=self._crop_size))
            try:
                self.first_sample[part, name] = sample(places[0])
            except Exception as error:  # peers raise any exception, and a missing one must not end the run
                self.failures[f"{name}, {part}"] = " ".join(str(error).split())[:160] or type(error).__name__
            else:
                self.runs[part, name] = partial(_run_all, sample, places)

    def drop_other_pictures(self, part: str, reference: str) -> None:
        """Remove decoders that read another stream of the file, because their work differs."""
        for name, levels in self.difference(part, reference).items():
            if levels > MAX_DIFFERENCE:
                del self.runs[part, name]
                self.failures[f"{name}, {part}"] = (
                    f"another picture: {levels:.0f} grey levels from that of the {reference}"
                )

    def difference(self, part: str, reference: str) -> dict[str, float]:
        """Mean absolute difference to the reference's first sample, in grey levels, by decoder."""
        expected = self.first_sample[part, reference].astype(np.int16)
        return {
            name: float(np.abs(sample - expected).mean())
            for (of_part, name), sample in self.first_sample.items()
            if of_part == part
        }


def run_suite(config: DecodeSuiteConfig, *, repeats: int) -> SuiteReport:
    """Measure samples from sources and from their segments on one core.

    Raises:
        UserError: `crop_size` does not fit into `short_side`.
    """
    if config.crop_size > config.short_side:
        raise UserError(f"decode.crop_size must be in 1..{config.short_side} (short_side), got {config.crop_size}")
    lines = [describe_machine("before")]
    found = find_clips([input_path(folder) for folder in config.clips], clips_per_folder=config.clips_per_folder)
    with tempfile.TemporaryDirectory() as folder, _one_core():
        clips = found.clips + _generate(config, Path(folder))
        if not clips:
            raise UserError(
                "decode.clips has no video and decode.generated_num_frames is 0: give folders with videos, or "
                "generate a video"
            )
        results = [_measure(clip, config, repeats=repeats) for clip in clips]
    lines += [describe_machine("after"), describe_versions()]
    report = report_decoding(results, found.left_out)
    return report._replace(text="\n".join([*lines, "", report.text]))


def _generate(config: DecodeSuiteConfig, folder: Path) -> list[BenchmarkClip]:
    if not config.generated_num_frames:
        return []
    write_moving_video(
        folder / GENERATED,
        num_frames=config.generated_num_frames,
        height=config.generated_height,
        width=config.generated_width,
        seed=config.seed,
    )
    return [describe_clip(folder / GENERATED)]


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread and those it starts on one core, so that hidden threads do not help a decoder."""
    cores, num_threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(num_threads)


def _measure(clip: BenchmarkClip, config: DecodeSuiteConfig, *, repeats: int) -> ClipResult:
    """All cases of one video in turns: the source, and each of its encodings at even and odd starts."""
    path, height, width = str(clip.path), clip.info.height, clip.info.width
    places = _draw_places(clip.info.num_frames, config)
    num_unequal = sum(_count_unequal(path, indices) for indices in places)
    print(f"{clip.path.name}: {num_unequal} of {places.size} frames differ from a full decode", flush=True)
    cases = _Cases(crop_size=config.crop_size)
    size = resized_size(height, width, short_side=config.short_side)
    decoders = source_decoders(is_scaled=size != (height, width), stream_index=clip.stream_index)
    cases.add("source", decoders, path, list(places), size)
    cases.drop_other_pictures("source", PLAIN)
    stored = store_clip(path, short_side=config.short_side)
    for segment in stored.segments.values():
        size = resized_size(segment.height, segment.width, short_side=config.short_side)
        for parity, name in enumerate(("even", "odd")):
            starts = [_at_parity(i, parity, segment.num_frames) + segment.frame_offset for i in places]
            decoders = segment_decoders(key_distance=segment.key_distance)
            cases.add(f"{segment.encoding} {name}", decoders, segment.data, starts, size)
    seconds = alternating_seconds(cases.runs, repeats=repeats, clock=time.process_time)
    rates = median_rates(seconds, amount=len(places))
    return ClipResult(
        clip=clip,
        num_compared=places.size,
        num_unequal=num_unequal,
        samples_per_second=_of_part(rates, "source"),
        difference=cases.difference("source", PLAIN),
        stored=_stored_results(path, stored, rates, config.short_side),
        not_measured=cases.failures | stored.refused,
    )


def _draw_places(video_num_frames: int, config: DecodeSuiteConfig) -> Indices:
    """Frame indices of the samples, (num_places, num_frames)."""
    rng = np.random.default_rng(config.seed)
    options = {"num_frames": config.num_frames, "frame_stride": config.frame_stride}
    clips = [
        random_clip(video_num_frames, short_video="repeat_last", rng=rng, **options) for _ in range(config.num_places)
    ]
    return np.stack([clip.frame_indices for clip in clips])


def _at_parity(indices: Indices, parity: int, num_frames: int) -> Indices:
    """The nearest sample whose start is even (0) or odd (1), inside the segment."""
    shifted = indices + (parity - indices[0]) % 2
    return np.clip(shifted - 2 * (shifted.max() >= num_frames), 0, num_frames - 1)


def _count_unequal(path: str, indices: Indices) -> int:
    """How many of our frames differ from those of a PyAV loop over the whole file, at the file's own size."""
    frames_THWC = decode_frames(path, indices)
    num_unequal = 0
    with av.open(path) as container:
        for index, frame in enumerate(container.decode(video=0)):
            rows = np.flatnonzero(indices == index)
            if len(rows):
                expected_HWC = frame.to_ndarray(format="rgb24", threads=1)
                num_unequal += sum(not np.array_equal(frames_THWC[row], expected_HWC) for row in rows)
    return num_unequal


def _sample(decode: Decoder, source: VideoSource, size: Size, crop: Crop, indices: Indices) -> Frames:
    return decode(source, indices, size, crop)


def _run_all(sample: Callable[[Indices], Frames], places: Sequence[Indices]) -> None:
    for indices in places:
        sample(indices)


def _of_part(rates: dict[tuple[str, str], float], part: str) -> dict[str, float]:
    return {name: rate for (of_part, name), rate in rates.items() if of_part == part}


def _stored_results(
    path: str, stored: StoredClip, rates: dict[tuple[str, str], float], short_side: int
) -> list[StoredResult]:
    return [
        StoredResult(
            encoding=name,
            is_auto=name == stored.auto,
            num_bytes=len(segment.data),
            psnr=measure_psnr(path, segment, short_side=short_side),
            even=_of_part(rates, f"{name} even"),
            odd=_of_part(rates, f"{name} odd"),
        )
        for name, segment in stored.segments.items()
    ]
