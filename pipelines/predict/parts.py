"""Videos become parts, and parts become tasks of about equal work, each of which one CPU decodes.

    videos   [a ..... hours long .....][b][c][d][e]
    parts    [a 0/3][a 1/3][a 2/3     ][b][c][d][e]      a part: one of equal shares of the clips of a video
    tasks    [     ][     ][          ][          ]

So a long video is cut over the CPUs by time, and many short ones are decoded by one task. The work of a video is
estimated by the size of its file. Where only decoding shows which frames there are, the first part of a video has all
of its clips, and the others are empty (see `clip_reader.read_views`).

Legend: B views of a batch, S segments, T frames, H x W pixels, C channels.
"""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.clips.batch import NumpyBatch
from pipelines.predict.videos import NamedVideo
from pipelines.prepare.sources import LocalRoot
from t3d_core.errors import describe_error
from t3d_core.video.clip_reader import VideoShare, VideoView, ViewSampling
from t3d_core.video.guard import DecoderKilledError, GuardedDecoder, GuardLimits

# Tasks for each CPU, so that all end at about the same time. Small ones are joined, up to one for each CPU, because the
# last batch of a task is rarely full.
_TASKS_A_CPU = 8
_MIN_TASK_BYTES = 4 << 20
# Every part lists the packets of its whole file, and a shorter part would mostly do that.
_MIN_PART_BYTES = 8 << 20
_MAX_PART_BYTES = 256 << 20
# Every part of a file in a store copies it whole.
_MAX_REMOTE_PARTS = 4
_MAX_TASK_PARTS = 256
# To open a file takes as long as to decode this much of one.
_OPENING_BYTES = 64 << 10
# Taken for the size of a file that only its store knows.
_UNKNOWN_BYTES = 4 << 20


class VideoPart(NamedTuple):
    """A part of a video.

    Attributes:
        video: place of the video in a list.
        share: which of its clips.
    """

    video: int
    share: VideoShare


class PartEnd(NamedTuple):
    """The end of a part.

    Attributes:
        part: number of the part.
        num_views: views that it has, if it did not fail.
        reason: why its views cannot be read; empty where they were.
    """

    part: int
    num_views: int
    reason: str


def cut_into_parts(videos: Sequence[NamedVideo], *, is_cut: bool, num_cpus: int) -> list[list[VideoPart]]:
    """Cut videos into the parts of tasks, in the order of the videos.

    Args:
        videos: not empty.
        is_cut: whether a video may have several parts.
        num_cpus: which decode at the same time.

    Returns:
        The parts of each task.
    """
    sizes = [video.num_bytes or _UNKNOWN_BYTES for video in videos]
    all_bytes = sum(sizes) + _OPENING_BYTES * len(sizes)
    task_bytes = max(all_bytes / (_TASKS_A_CPU * num_cpus), min(all_bytes / num_cpus, _MIN_TASK_BYTES))
    task_bytes = min(task_bytes, _MAX_PART_BYTES)
    tasks: list[list[VideoPart]] = [[]]
    filled = 0.0
    for place, (video, num_bytes) in enumerate(zip(videos, sizes, strict=True)):
        count = max(1, int(num_bytes / max(task_bytes, _MIN_PART_BYTES))) if is_cut else 1
        if not isinstance(video.root, LocalRoot):
            count = min(count, _MAX_REMOTE_PARTS)
        for index in range(count):
            part_bytes = num_bytes / count + _OPENING_BYTES
            # To the nearest part: a task that always went over its share would leave other CPUs without one.
            if tasks[-1] and (filled + part_bytes / 2 >= task_bytes or len(tasks[-1]) >= _MAX_TASK_PARTS):
                tasks.append([])
                filled = 0.0
            tasks[-1].append(VideoPart(place, VideoShare(index, count)))
            filled += part_bytes
    return tasks


@dataclass(frozen=True)
class PartReader:
    """Reads the parts of a task: what runs on the CPU workers.

    Attributes:
        sampling: which views are read.
        batch_size: views of a batch.
        limits: what one video may cost.
        max_source_bytes: size of a file.
    """

    sampling: ViewSampling
    batch_size: int
    limits: GuardLimits
    max_source_bytes: int

    def batches(self, parts: Sequence[tuple[int, NamedVideo, VideoShare]]) -> Iterator[NumpyBatch]:
        """Read numbered parts; views of several parts fill one batch.

        Yields:
            `clip_BSTHWC` uint8, `part_B`, `place_B` (numbers of the views in their parts), `start_B`, `end_B`
            (seconds), `num_padded_B`; and `ends_1`, the parts that ended, as `ends_of` reads them. A batch that only
            ends parts has one blank view, of part -1.
        """
        views: list[tuple[int, int, VideoView]] = []
        ends: list[PartEnd] = []
        for number, video, share in parts:
            num_views, reason = 0, ""
            try:
                with video.open(max_bytes=self.max_source_bytes) as file:
                    for view in decoder_of_process(self.limits).read_views(file.path, self.sampling, share=share):
                        views.append((number, num_views, view))
                        num_views += 1
                        if len(views) == self.batch_size:
                            yield self._batch(views, ends)
                            views, ends = [], []
            except (ValueError, DecoderKilledError, OSError) as error:
                reason = describe_error(error)
            ends.append(PartEnd(number, num_views, reason))
        if views or ends:
            yield self._batch(views, ends)

    def _batch(self, views: Sequence[tuple[int, int, VideoView]], ends: Sequence[PartEnd]) -> NumpyBatch:
        parts, places, shown = zip(*(views or [(-1, 0, self._blank_view())]), strict=True)
        return {
            "clip_BSTHWC": np.stack([view.clip_STHWC for view in shown]),
            "part_B": np.array(parts),
            "place_B": np.array(places),
            "start_B": np.array([view.start_seconds for view in shown]),
            "end_B": np.array([view.end_seconds for view in shown]),
            "num_padded_B": np.array([view.num_padded for view in shown]),
            # JSON is ASCII, while reasons may hold names of files that are not UTF-8.
            "ends_1": np.array([json.dumps(ends)]),
        }

    def _blank_view(self) -> VideoView:
        clip = self.sampling.clip
        shape = (clip.num_segments, clip.num_frames, clip.crop_size, clip.crop_size, 3)
        return VideoView(np.zeros(shape, np.uint8), 0.0, 0.0, 0)


def ends_of(batch: NumpyBatch) -> list[PartEnd]:
    """The parts that end with a batch, or ended before it."""
    return [PartEnd(*end) for end in json.loads(str(batch["ends_1"][0]))]


@functools.cache
def decoder_of_process(limits: GuardLimits) -> GuardedDecoder:
    """One child for all tasks of this process; the child ends when this process does."""
    return GuardedDecoder(limits)
