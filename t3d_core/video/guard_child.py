"""The process that touches untrusted video: requests come in as lines of JSON, answers go out as framed messages.

Started by `guard.GuardedDecoder` as `python -m t3d_core.video.guard_child LIMITS`. It lowers its own rights first: a
bounded address space, no writing to files, no core dumps; and it sets an alarm for every message, so that it also dies
where its parent is gone. A message is two little-endian lengths (uint32 and uint64), a JSON object and raw bytes.
"""

import json
import math
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from t3d_core.errors import UserError
from t3d_core.video.clip_reader import VideoShare, ViewSampling, read_views
from t3d_core.video.clip_sampling import ClipView
from t3d_core.video.container import EmptyIntervalError, VideoError, stated_seconds
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.frame_reader import read_frames
from t3d_core.video.storage import encode_segments

HEADER = struct.Struct("<IQ")
# The parent kills at the deadline; only where there is none any more does the alarm go off.
_ALARM_DELAY_SECONDS = 5


class Message(NamedTuple):
    """A message of the child: `fields` describe it, `payload` holds frames or an encoded segment."""

    fields: dict[str, Any]
    payload: bytes | memoryview = b""


def main() -> None:
    """Answer requests until the parent closes its end."""
    limits = json.loads(sys.argv[1])
    _lower_rights(memory_bytes=limits["memory_bytes"])
    answers = _claim_stdout()
    _send(answers, Message({"kind": "ready"}))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.alarm(math.ceil(limits["seconds"]) + _ALARM_DELAY_SECONDS)
        try:
            for message in _answer(request["operation"], request["arguments"]):
                signal.alarm(0)  # not while the parent works on what it has
                _send(answers, message)
                signal.alarm(math.ceil(limits["seconds"]) + _ALARM_DELAY_SECONDS)
            _send(answers, Message({"kind": "end"}))
        except Exception as error:  # the parent decides what it means
            _send(answers, Message({"kind": "error", "type": _kind_of(error), "reason": str(error)}))
        signal.alarm(0)


def _kind_of(error: Exception) -> str:
    """The name of the error's class, or of the one that the parent knows."""
    kinds: tuple[type[Exception], ...] = (EmptyIntervalError, VideoError, UserError, ValueError, MemoryError)
    return next((kind for kind in kinds if isinstance(error, kind)), type(error)).__name__


def _answer(operation: str, arguments: dict[str, Any]) -> Iterator[Message]:
    if operation == "probe":
        yield Message({"kind": "info", **asdict(probe(arguments["path"]))})
    elif operation == "stated_seconds":
        yield Message({"kind": "length", "seconds": stated_seconds(arguments["path"])})
    elif operation == "decode_frames":
        size = arguments["size"]
        frames_THWC = decode_frames(
            arguments["path"], np.array(arguments["frame_indices"], np.int64), size=tuple(size) if size else None
        )
        yield Message(
            {"kind": "frames", "shape": frames_THWC.shape}, np.ascontiguousarray(frames_THWC).reshape(-1).data
        )
    elif operation == "encode_segments":
        for segment in encode_segments(**arguments):
            fields = asdict(segment)
            data = fields.pop("data")
            yield Message({"kind": "segment", **fields}, data)
    elif operation == "read_views":
        sampling = arguments["sampling"]
        sampling = ViewSampling(**sampling | {"clip": ClipView(**sampling["clip"])})
        for view in read_views(arguments["source"], sampling, share=VideoShare(*arguments["share"])):
            fields = view._asdict()
            clip_STHWC = fields.pop("clip_STHWC")
            yield Message(
                {"kind": "view", "shape": clip_STHWC.shape, **fields}, np.ascontiguousarray(clip_STHWC).reshape(-1).data
            )
    elif operation == "read_frames":
        for frame_HWC, seconds, fps in read_frames(arguments["source"]):
            yield Message(
                {"kind": "frame", "shape": frame_HWC.shape, "seconds": seconds, "fps": fps},
                np.ascontiguousarray(frame_HWC).reshape(-1).data,
            )
    else:
        raise AssertionError(f"no operation {operation!r}")


def _lower_rights(*, memory_bytes: int) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _claim_stdout() -> BinaryIO:
    """Give the answers a descriptor of their own: what a library prints goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _send(answers: BinaryIO, message: Message) -> None:
    text = json.dumps(message.fields).encode()
    answers.write(HEADER.pack(len(text), len(message.payload)) + text)
    answers.write(message.payload)
    answers.flush()


if __name__ == "__main__":
    main()
