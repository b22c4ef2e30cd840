"""The loop that people write around torchvision's r3d_18: video files go in, a line with scores comes out for each.

It runs as a process of its own and imports nothing of this project:

    python -m pipelines.benchmark.predict.torchvision_loop '{"decoder": "torchcodec", "videos": [...], ...}'

A clip has `num_frames` frames, `frame_stride` apart; clips are side by side, up to `batch_size` go through the network
at once. Frames are scaled and cut as the preset of torchvision's own weights does it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.models.video import R3D_18_Weights, r3d_18


class _Video(Protocol):
    """An open video: its number of frames, and some of them as uint8 (T, C, H, W)."""

    num_frames: int

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        """Decode these frames."""
        ...


class _TorchcodecVideo:
    def __init__(self, path: str) -> None:
        from torchcodec.decoders import VideoDecoder

        self._decoder = VideoDecoder(path)
        self.num_frames = len(self._decoder)

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        return self._decoder.get_frames_at(list(indices)).data


class _DecordVideo:
    def __init__(self, path: str) -> None:
        import decord

        self._reader = decord.VideoReader(path)
        self.num_frames = len(self._reader)

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        return torch.from_numpy(self._reader.get_batch(list(indices)).asnumpy()).permute(0, 3, 1, 2)


_DECODERS: dict[str, Callable[[str], _Video]] = {"torchcodec": _TorchcodecVideo, "decord": _DecordVideo}


def clip_starts(video_num_frames: int, *, num_frames: int, frame_stride: int) -> range:
    """First frames of the clips side by side; a video that is too short has one."""
    last_start = video_num_frames - 1 - (num_frames - 1) * frame_stride
    return range(0, max(1, last_start + 1), num_frames * frame_stride)


def main(request: dict[str, Any]) -> None:
    """Score the videos of the request, and append a line to its file `answers` for each."""
    net = r3d_18(weights=None, num_classes=request["num_classes"])
    net.load_state_dict(torch.load(request["weights"], weights_only=True))
    net.eval()
    sizes = {"crop_size": (request["crop_size"],) * 2, "resize_size": (request["short_side"],)}
    preset = R3D_18_Weights.KINETICS400_V1.transforms(**sizes)
    open_video = _DECODERS[request["decoder"]]
    with Path(request["answers"]).open("a", buffering=1) as answers, torch.inference_mode():
        for path in request["videos"]:
            scores = [net(preset(batch)).softmax(1) for batch in _batches(open_video(path), request)]
            score_NK = torch.cat(scores)
            label = int(score_NK.mean(0).argmax())
            answers.write(json.dumps({"video": path, "label": label, "clips": score_NK.tolist()}) + "\n")


def _batches(video: _Video, request: dict[str, Any]) -> Iterator[Tensor]:
    """The clips of a video in batches (B, T, C, H, W), uint8."""
    num_frames, frame_stride = request["num_frames"], request["frame_stride"]
    starts = clip_starts(video.num_frames, num_frames=num_frames, frame_stride=frame_stride)
    for first in range(0, len(starts), request["batch_size"]):
        some = starts[first : first + request["batch_size"]]
        indices = [
            min(start + place * frame_stride, video.num_frames - 1) for start in some for place in range(num_frames)
        ]
        yield video.frames_at(indices).unflatten(0, (len(some), num_frames))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
