"""Frames of a video and its timeline become an mp4 file with label, score and timeline drawn in."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.predict.overlay import Overlay
from pipelines.runtime.files import whole_file
from t3d_core.prediction.timeline import Timeline
from t3d_core.video.playable import write_playable

Frame = npt.NDArray[np.uint8]


def annotate_frames(
    frames: Iterable[Frame],
    *,
    path: Path,
    fps: float,
    timeline: Timeline,
    class_names: Sequence[str],
    start_seconds: float = 0.0,
    min_segment_seconds: float = 0.0,
) -> None:
    """Write the annotated copy of a video, without sound; its memory does not grow with the number of frames.

    Args:
        frames: arrays frame_HWC, uint8 RGB, all of one size; they are taken as they are needed and not changed. Of an
            odd size the last row or column is left out.
        path: the mp4 file; complete or absent.
        fps: frames a second, constant.
        timeline: of the video.
        class_names: by label.
        start_seconds: moment of the first frame on the clock of the timeline.
        min_segment_seconds: `min_seconds` of the segments.

    Raises:
        UserError: there is no frame, or frames differ in size.
    """

    def annotated() -> Iterator[Frame]:
        overlay = None
        for place, frame_HWC in enumerate(frames):
            if overlay is None:
                height, width = (side // 2 * 2 for side in frame_HWC.shape[:2])
                overlay = Overlay(
                    timeline,
                    class_names,
                    size=(height, width),
                    start_seconds=start_seconds,
                    min_segment_seconds=min_segment_seconds,
                )
            yield overlay.draw(frame_HWC, start_seconds + place / fps)

    with whole_file(path) as partial:
        write_playable(annotated(), path=partial, fps=fps)
