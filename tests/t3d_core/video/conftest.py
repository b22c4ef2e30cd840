"""Small video files made on the spot, and the real clips where the checkout has them beside it."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

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
        return np.stack([f.to_ndarray(format="rgb24", threads=1) for f in container.decode(video=0)])


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
