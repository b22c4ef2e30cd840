"""Decoded frames go in, an mp4 file made for reading clips comes out: H.264 or a JPEG a frame, at one size and rate.

Every odd frame of an H.264 file is a B-frame that no other frame needs and a key frame comes every 32 frames: at the
paper's stride 2 (Table 6) half of the frames is never decoded and a seek costs at most a short group.

    frame    0 1 2 3 4 ... 30 31 32 33        K key frame, b not needed by others
             K b P b P ...  P  P  K  b

The bytes follow from the frames alone: one thread, and nothing of x264 that reads unset memory (its macroblock tree).
"""

from fractions import Fraction
from typing import IO, Literal

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from t3d_core.video.conversion import rgb_view, upright, with_known_matrix

# aq-mode=0: bits go where they lower the mean squared error, 0.5 to 0.8 dB at the same bytes.
# no-mbtree: with the tree the same frames gave different bytes from run to run (x264 of PyAV 18.1, AVX-512).
_H264_OPTIONS = {
    "preset": "faster",
    "crf": "22",
    "tune": "fastdecode",
    "x264-params": "bframes=1:b-adapt=0:b-pyramid=none:keyint=32:min-keyint=32:scenecut=0:weightp=0:aq-mode=0"
    ":no-mbtree=1:threads=1",
}
# Frames from key frame to key frame.
KEY_DISTANCE = {"h264": 32, "jpeg": 1}
_JPEG_QUALITY = 3  # FFmpeg's scale: 1 is best; 3 gives about 40 dB
_LAMBDA_OF_QUALITY = 118
_JPEG_OPTIONS = {"flags": "+qscale", "global_quality": str(_JPEG_QUALITY * _LAMBDA_OF_QUALITY)}

# JPEG is always read by the matrix of BT.601; these are it, or nothing that says otherwise (ITU-T H.273, 8.3).
_UNSPECIFIED, _BT470BG, _SMPTE170M = 2, 5, 6
_JPEG_MATRICES = frozenset({_UNSPECIFIED, _BT470BG, _SMPTE170M})

# A header may claim any rate; mp4 and x264 count time in 32 bits.
_MIN_FPS, _MAX_FPS, _MAX_FPS_DENOMINATOR = Fraction(1, 1000), Fraction(1000), 10_000


class SegmentWriter:
    """Writes frames of any size and format as one mp4 file; a context manager.

    Args:
        file: open for writing, seekable.
        codec: "h264" or "jpeg".
        size: (height, width) in pixels, even; all frames are scaled to it.
        fps: frames a second.
    """

    def __init__(
        self, file: IO[bytes], *, codec: Literal["h264", "jpeg"], size: tuple[int, int], fps: Fraction
    ) -> None:
        self.num_frames = 0
        self._height, self._width = size
        self._fps = min(max(fps, _MIN_FPS), _MAX_FPS).limit_denominator(_MAX_FPS_DENOMINATOR)
        self._color_range = ColorRange.MPEG if codec == "h264" else ColorRange.JPEG
        self._pix_fmt = "yuv420p" if codec == "h264" else "yuvj420p"
        self._reformatter = VideoReformatter()
        self._container = av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"})
        if codec == "h264":
            self._stream = self._container.add_stream("libx264", rate=self._fps, options=_H264_OPTIONS)
        else:
            self._stream = self._container.add_stream("mjpeg", rate=self._fps, options=_JPEG_OPTIONS)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = self._pix_fmt
        self._stream.thread_count = 1

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        try:
            if exc_type is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def write(self, frame: VideoFrame) -> None:
        """Add one frame, scaled; the first one fixes how colours are written down."""
        frame = with_known_matrix(frame)
        if self._stream.codec_context.name == "mjpeg" and frame.colorspace not in _JPEG_MATRICES:
            frame = frame.reformat(format="rgb24", threads=1)
            frame.colorspace = _UNSPECIFIED  # the planes are made anew in the matrix of JPEG
        if self.num_frames == 0:
            # The decoder of the segment must turn YUV into RGB as the decoder of the source does.
            self._stream.codec_context.colorspace = frame.colorspace
            self._stream.codec_context.color_range = self._color_range
        converted = self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            self._pix_fmt,
            interpolation=Interpolation.BICUBIC,
            dst_color_range=self._color_range,
            threads=1,
        )
        converted.pts = self.num_frames
        converted.time_base = 1 / self._fps
        converted.pict_type = PictureType.NONE  # or the encoder would copy the source's choice of key frames
        self._container.mux(self._stream.encode(converted))
        self.num_frames += 1


def upright_frame(frame: VideoFrame, *, rotation_degrees: int) -> VideoFrame:
    """Turn a frame counter-clockwise by a multiple of 90 degrees (rgb24 then); other angles are left as they are."""
    if rotation_degrees % 360 == 0:
        return frame
    turned = upright(
        rgb_view(with_known_matrix(frame).reformat(format="rgb24", threads=1)), rotation_degrees=rotation_degrees
    )
    return VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="rgb24")
