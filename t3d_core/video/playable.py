"""RGB frames go in, an mp4 file for people comes out: H.264 that players and browsers show while it downloads.

`segment_writer` makes files for reading clips: these have fewer key frames, and the encoder may use all cores.
"""

import os
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from t3d_core.errors import UserError

# This preset looks 10 frames ahead, x264's own 40: they are memory, 12 MB a frame of 3840x2160.
_OPTIONS = {"preset": "veryfast", "crf": "20"}
_KEY_SECONDS = 2  # a player that seeks decodes at most so much
_HIGH_DEFINITION = 720  # pixels of the short side from which players expect the colours of BT.709
_MIN_FPS, _MAX_FPS, _MAX_FPS_DENOMINATOR = Fraction(1, 1000), Fraction(1000), 10_000  # mp4 counts time in 32 bits


def write_playable(frames: Iterable[npt.NDArray[np.uint8]], *, path: str | os.PathLike[str], fps: float) -> None:
    """Encode frames as they come; only what the encoder looks ahead is in memory.

    Args:
        frames: arrays frame_HWC, uint8 RGB, all of one size; of an odd size the last row or column is left out.
        path: file to write.
        fps: frames a second; other rates than 0.001 to 1000 become the nearest of these.

    Raises:
        UserError: there is no frame, or a frame has another size than the first, or less than 2x2 pixels.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise UserError("frames must hold at least one frame, got none")
    height, width = (side // 2 * 2 for side in first.shape[:2])  # as 4:2:0 colour needs
    if not (height and width):
        raise UserError(f"frames must have at least 2x2 pixels, got {first.shape[1]}x{first.shape[0]}")
    rate = min(max(Fraction(fps), _MIN_FPS), _MAX_FPS).limit_denominator(_MAX_FPS_DENOMINATOR)
    matrix = Colorspace.ITU709 if min(height, width) >= _HIGH_DEFINITION else Colorspace.ITU601
    with av.open(os.fspath(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        options = _OPTIONS | {"g": str(max(1, round(_KEY_SECONDS * rate)))}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.thread_count = 0  # as many as there are cores
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, ColorRange.MPEG
        for place, frame_HWC in enumerate(chain([first], frames)):
            if frame_HWC.shape != first.shape:
                raise UserError(f"frames must all have the shape {first.shape}, got {frame_HWC.shape}")
            even_HWC = np.ascontiguousarray(frame_HWC[:height, :width])
            frame = VideoFrame.from_ndarray(even_HWC, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=matrix, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = place, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
