"""An untrusted video file goes in, frames or stored segments come out, or one reason why not.

A damaged or hostile file can crash FFmpeg, keep it busy for ever or make it ask for all memory, without a Python
exception. So a child process decodes, under a deadline and a memory limit, and is replaced after a file that it did not
survive:

    this process            child process
    encode_segments() ----> JSON request        FFmpeg, PyAV, x264
                      <---- segment, segment, end | error | (nothing: crashed, or past the deadline)

All stages read SOURCE files through here (except the benchmarks, whose files the user chooses); shards hold what a
guarded child has decoded in full.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3d_core.errors import UserError
from t3d_core.video.clip_reader import WHOLE_VIDEO, VideoShare, VideoView, ViewSampling
from t3d_core.video.container import EmptyIntervalError, VideoError
from t3d_core.video.decoding import VideoInfo
from t3d_core.video.frame_reader import TimedFrame
from t3d_core.video.guard_child import HEADER, Message
from t3d_core.video.storage import EncodedSegment

_MAX_FIELDS_BYTES = 1 << 20
_READ_BYTES = 1 << 20
_START_SECONDS = 60
_END_SECONDS = 10
# FFmpeg and PyAV lose a little memory with every file; under a limit that must not add up.
_MAX_REQUESTS = 200
# Errors after which the child is as good as before, by name.
_REFUSALS = {error.__name__: error for error in (EmptyIntervalError, VideoError, UserError, ValueError)}
# Of the environment, all that Python, its libraries and the names of files need.
_INHERITED = {"PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONHOME", "PYTHONUTF8"}


@dataclass(frozen=True)
class GuardLimits:
    """What one file may cost.

    Attributes:
        seconds: time on the clock for one request; where a video of any length is read, for each view or frame.
        memory_bytes: address space of the child, of which Python and FFmpeg themselves take about 0.4 GiB.
        output_bytes: bytes of frames or segments that one request may give; or of one view or frame.
    """

    seconds: float = 300.0
    memory_bytes: int = 2 << 30
    output_bytes: int = 1 << 30


class DecoderKilledError(RuntimeError):
    """The child was killed from outside, as the kernel does when memory runs out: the file may be a good one."""


class GuardedDecoder:
    """Decodes in a child process that any file may kill; started at the first request. Not for several threads.

    Every method raises VideoError with a short reason when the file cannot be used, whatever it does, UserError for
    wrong arguments, DecoderKilledError when another process ended the child, and OSError when no child can start.
    """

    def __init__(self, limits: GuardLimits = GuardLimits()) -> None:
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._num_requests = 0

    def __enter__(self) -> "GuardedDecoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def probe(self, path: str | os.PathLike[str]) -> VideoInfo:
        """As `decoding.probe`."""
        [message] = self._ask("probe", path=os.fspath(path))
        return VideoInfo(**_without_kind(message))

    def stated_seconds(self, path: str | os.PathLike[str]) -> float | None:
        """As `container.stated_seconds`."""
        [message] = self._ask("stated_seconds", path=os.fspath(path))
        return message.fields["seconds"]

    def decode_frames(
        self,
        path: str | os.PathLike[str],
        frame_indices: Sequence[int] | npt.NDArray[np.integer],
        *,
        size: tuple[int, int] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """As `decoding.decode_frames`: frames_THWC, uint8 RGB."""
        indices = np.asarray(frame_indices).tolist()
        [message] = self._ask("decode_frames", path=os.fspath(path), frame_indices=indices, size=size)
        return np.frombuffer(message.payload, np.uint8).reshape(message.fields["shape"])

    def encode_segments(self, path: str | os.PathLike[str], **options: Any) -> Iterator[EncodedSegment]:
        """As `storage.encode_segments`; a segment is handed over as soon as it is made."""
        with closing(self._ask("encode_segments", source=os.fspath(path), **options)) as messages:
            for message in messages:
                fields = _without_kind(message)
                yield EncodedSegment(data=bytes(message.payload), notes=tuple(fields.pop("notes")), **fields)

    def read_views(
        self, path: str | os.PathLike[str], sampling: ViewSampling, *, share: VideoShare = WHOLE_VIDEO
    ) -> Iterator[VideoView]:
        """As `clip_reader.read_views`; a view is handed over as soon as it is complete."""
        request = {"source": os.fspath(path), "sampling": asdict(sampling), "share": share}
        with closing(self._ask("read_views", is_endless=True, **request)) as messages:
            for message in messages:
                fields = _without_kind(message)
                clip_STHWC = np.frombuffer(message.payload, np.uint8).reshape(fields.pop("shape"))
                yield VideoView(clip_STHWC=clip_STHWC, **fields)

    def read_frames(self, path: str | os.PathLike[str]) -> Iterator[TimedFrame]:
        """As `frame_reader.read_frames`."""
        with closing(self._ask("read_frames", is_endless=True, source=os.fspath(path))) as messages:
            for message in messages:
                fields = _without_kind(message)
                frame_HWC = np.frombuffer(message.payload, np.uint8).reshape(fields.pop("shape"))
                yield TimedFrame(frame_HWC=frame_HWC, **fields)

    def close(self) -> None:
        """End the child process, whatever it is doing."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # a request that the child did not read before it died
                    pipe.close()

    def _ask(self, operation: str, *, is_endless: bool = False, **arguments: Any) -> Generator[Message]:
        """Yield the child's messages; a child that does not finish the request is not used again.

        A file that it refuses finishes the request: to start a child takes longer than to refuse most files.

        Args:
            operation: of the child.
            is_endless: the limits are those of each message, because a good file may give any number of them.
            arguments: of the operation.
        """
        child = self._ready_child()
        deadline = time.monotonic() + self._limits.seconds
        output_bytes = 0
        is_done = False
        try:
            _write(child, {"operation": operation, "arguments": arguments})
            while (message := self._receive(child, deadline)).fields["kind"] != "end":
                output_bytes += len(message.payload)
                if output_bytes > self._limits.output_bytes:
                    raise VideoError(f"gives more than {_gib(self._limits.output_bytes)}")
                if message.fields["kind"] == "error":
                    is_done = message.fields["type"] in _REFUSALS
                    raise self._error(message)
                yield message
                if is_endless:
                    deadline, output_bytes = time.monotonic() + self._limits.seconds, 0
            is_done = True
        finally:
            if not is_done:
                self.close()

    def _error(self, message: Message) -> Exception:
        kind, reason = message.fields["type"], message.fields["reason"]
        if kind == "MemoryError":
            return VideoError(f"needs more than {_gib(self._limits.memory_bytes)} of memory")
        return _REFUSALS[kind](reason) if kind in _REFUSALS else VideoError(f"{kind}: {reason}")

    def _ready_child(self) -> subprocess.Popen[bytes]:
        self._num_requests += 1
        if self._child is not None and (self._child.poll() is not None or self._num_requests > _MAX_REQUESTS):
            self.close()
        if self._child is None:
            self._num_requests = 1
            self._child = _start_child(self._limits)
            try:
                self._receive(self._child, time.monotonic() + _START_SECONDS)
            except (VideoError, DecoderKilledError) as error:
                self.close()
                raise ChildProcessError(f"the decoding process does not start ({error}); see its messages") from None
        return self._child

    def _receive(self, child: subprocess.Popen[bytes], deadline: float) -> Message:
        num_field_bytes, num_payload_bytes = HEADER.unpack(self._read(child, HEADER.size, deadline))
        if num_field_bytes > _MAX_FIELDS_BYTES or num_payload_bytes > self._limits.output_bytes:
            raise VideoError(f"gives more than {_gib(self._limits.output_bytes)}")
        fields = json.loads(self._read(child, num_field_bytes, deadline))
        return Message(fields, memoryview(self._read(child, num_payload_bytes, deadline)))

    def _read(self, child: subprocess.Popen[bytes], num_bytes: int, deadline: float) -> bytearray:
        assert child.stdout is not None
        descriptor, received = child.stdout.fileno(), bytearray()
        poll = select.poll()  # unlike select(), for descriptors of any number
        poll.register(descriptor, select.POLLIN)
        while len(received) < num_bytes:
            if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise VideoError(f"decoding takes more than {self._limits.seconds:g} s")
            chunk = os.read(descriptor, min(_READ_BYTES, num_bytes - len(received)))
            if not chunk:
                raise _error_of_death(child)
            received += chunk
        return received


def _start_child(limits: GuardLimits) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    known = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    # Tokens and keys stay out of the process that a hostile file might take over.
    inherited = {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("LC_")}
    environment = inherited | {
        # The code of this very package runs, and neither a module of the working folder nor another copy.
        "PYTHONPATH": os.pathsep.join([str(root), *known]),
        # Every thread of a numeric library takes address space.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-P", "-m", "t3d_core.video.guard_child", json.dumps(asdict(limits))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _write(child: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        pass  # the child died while it waited; reading its answer shows how


def _error_of_death(child: subprocess.Popen[bytes]) -> Exception:
    try:
        code = child.wait(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        return VideoError("decoder crashed (closed its output)")
    # What a file does within the child's limits ends in MemoryError, SIGSEGV or SIGABRT.
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        return DecoderKilledError(f"decoding process killed from outside ({signal.Signals(-code).name})")
    return VideoError(f"decoder crashed ({signal.Signals(-code).name if code < 0 else f'exit status {code}'})")


def _without_kind(message: Message) -> dict[str, Any]:
    return {name: value for name, value in message.fields.items() if name != "kind"}


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.3g} GiB"
