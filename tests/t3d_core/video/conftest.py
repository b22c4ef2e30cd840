"""Small video files made on the spot, and the real clips where the checkout has them beside it."""

import io
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from av.stream import Disposition

REAL_CLIPS = Path(__file__).resolve().parents[4] / "shared" / "data"


def _drawn_frame(index: int, height: int, width: int) -> np.ndarray:
    """A frame whose red tells its index, with a green block in the upper left corner (so that every turn is seen)."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = index * 3 % 256
    frame[: height // 2, : width // 4, 1] = 250
    frame[..., 2] = np.linspace(0, 255, width)
    return frame


def _encode(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    num_frames: int = 60,
    size: tuple[int, int] = (46, 64),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int | None = None,
    display_matrix: list[int] | None = None,
    pts: list[int] | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    # A file with a name: a header written first (faststart) makes FFmpeg open the file a second time.
    with tempfile.NamedTemporaryFile() as file:
        with av.open(
            file.name, "w", format=container, options=container_options, metadata_encoding="latin-1"
        ) as output:
            output.metadata.update(metadata or {})
            stream = output.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            if rotation is not None:
                stream.set_display_rotation(rotation)
            if display_matrix is not None:
                stream.set_display_matrix(display_matrix)
            for index in range(num_frames):
                frame = av.VideoFrame.from_ndarray(_drawn_frame(index, *size), format="rgb24").reformat(format=pix_fmt)
                frame.pts = pts[index] if pts else index
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return Path(file.name).read_bytes()


class VideoTrack(NamedTuple):
    """One video stream of a file with several: its frame k has the grey level 10 times its second, from `start` on."""

    codec: str = "libx264"
    size: tuple[int, int] = (46, 64)
    num_frames: int = 25
    fps: int = 25
    start_seconds: float = 0.0
    disposition: Disposition = Disposition.default
    options: dict[str, str] = {}  # noqa: RUF012 (never changed)


def _encode_tracks(container: str, *tracks: VideoTrack, audio_seconds: float | None = None) -> bytes:
    """A file of these video streams; with `audio_seconds` there is a silent sound from 0 s on, too."""
    with tempfile.NamedTemporaryFile() as file, av.open(file.name, "w", format=container) as output:
        audio = None
        if audio_seconds is not None:
            audio = output.add_stream("mp2" if container in ("mpegts", "avi") else "aac", rate=16000)
        streams = []
        for track in tracks:
            stream = output.add_stream(track.codec, rate=track.fps, options=dict(track.options))
            stream.height, stream.width = track.size
            stream.pix_fmt = "yuvj420p" if track.codec == "mjpeg" else "yuv420p"
            stream.disposition = track.disposition
            streams.append(stream)
        if audio is not None:
            _add_silence(output, audio, seconds=audio_seconds)
        for track, stream in zip(tracks, streams, strict=True):
            for index in range(track.num_frames):
                seconds = track.start_seconds + index / track.fps
                pixels = np.full((*track.size, 3), 10 * int(seconds + 1e-6), np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = round(seconds * track.fps), Fraction(1, track.fps)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        output.close()
        return Path(file.name).read_bytes()


def _add_silence(output, stream, *, seconds: float) -> None:
    samples = stream.codec_context.frame_size or 1024
    for index in range(int(seconds * 16000 / samples)):
        layout = "mono" if stream.codec_context.name == "aac" else "stereo"
        format_ = "fltp" if stream.codec_context.name == "aac" else "s16"
        frame = av.AudioFrame(format=format_, layout=layout, samples=samples)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.rate, frame.pts, frame.time_base = 16000, index * samples, Fraction(1, 16000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def _encode_audio(*, sample_rate: int = 16000) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=sample_rate)
        for index in range(9):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = sample_rate, index * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def _decode_plainly(source: str | Path | bytes) -> np.ndarray:
    """Every frame by PyAV's own loop, without any of our code: the reference for ours."""
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(file, metadata_errors="replace") as container:
        stream = container.streams.best("video")
        return np.stack([f.to_ndarray(format="rgb24", threads=1) for f in container.decode(stream)])


@pytest.fixture(scope="session")
def real_clip() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        path = REAL_CLIPS / name
        if not path.exists():
            pytest.skip(f"real clip {name} is not beside this checkout ({REAL_CLIPS})")
        return path

    return find


@pytest.fixture(scope="session")
def drawn_frame() -> Callable[..., np.ndarray]:
    return _drawn_frame


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    return _encode


@pytest.fixture(scope="session")
def encode_audio() -> Callable[..., bytes]:
    return _encode_audio


@pytest.fixture(scope="session")
def decode_plainly() -> Callable[..., np.ndarray]:
    return _decode_plainly


@pytest.fixture(scope="session")
def video_track() -> type[VideoTrack]:
    return VideoTrack


@pytest.fixture(scope="session")
def encode_tracks() -> Callable[..., bytes]:
    return _encode_tracks
