"""Our decoder and its peers behind one signature: a file and frame indices go in, scaled and cropped frames come out.

decord and torchcodec are no dependencies of this project (the extra `benchmark` installs them); torchcodec also needs
FFmpeg's shared libraries on the machine (Debian: libavcodec59 libavformat59 libavfilter8 libavdevice59). All are told
to use one thread. Shape letters: T frames, H height, W width, C = 3 colours.

How each one scales: ours and the plain loop by FFmpeg's swscale (bilinear), decord and torchcodec in both ways they
offer: while decoding, and at full size first and then by torchvision's bilinear `resize` on bytes.
"""

from collections.abc import Callable
from functools import partial
from importlib import metadata

import av
import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2 import functional as transforms

from t3d_core.video.cropping import center_crop, crop_frames
from t3d_core.video.decoding import VideoSource, decode_frames

Indices = npt.NDArray[np.int64]
Frames = npt.NDArray[np.uint8]
Size = tuple[int, int]
# (source, frame indices, height and width to scale to) -> frames_THWC
Decoder = Callable[[VideoSource, Indices, Size], Frames]

OURS, PLAIN = "ours", "plain loop"


def source_decoders(*, is_scaled: bool, stream_index: int | None = None) -> dict[str, Decoder]:
    """Ours and the peers that read a file; where frames are not scaled, a peer has one way instead of two.

    `stream_index` is the file's first video stream, the one that ours takes; decord cannot be told.
    """
    torchcodec = partial(_decode_by_torchcodec, stream_index=stream_index)
    decoders: dict[str, Decoder] = {
        OURS: _decode_ours,
        PLAIN: _decode_plainly,
        "decord": _decode_by_decord,
        "torchcodec": partial(torchcodec, is_scaling=is_scaled),
    }
    if is_scaled:
        decoders["decord, resize"] = _decode_by_decord_and_resize
        decoders["torchcodec, resize"] = partial(torchcodec, is_scaling=False)
    return decoders


def segment_decoders() -> dict[str, Decoder]:
    """The two that read an encoded segment from memory, at its own size."""
    return {OURS: _decode_ours, "torchcodec": partial(_decode_by_torchcodec, is_scaling=False)}


def cropped(decode: Decoder, source: VideoSource, indices: Indices, size: Size, *, crop_size: int) -> Frames:
    """The whole work of a sample: decode, scale to `size`, cut out the centre."""
    return crop_frames(decode(source, indices, size), center_crop(*size, crop_size=crop_size))


def describe_versions() -> str:
    """What is installed, in one line; call it after decoding, when torchcodec has found its FFmpeg."""
    found = [f"PyAV {av.__version__} (FFmpeg {av.ffmpeg_version_info})"]
    for name in ("decord", "torchcodec", "torch", "torchvision", "numpy"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)


def _decode_ours(source: VideoSource, indices: Indices, size: Size) -> Frames:
    return decode_frames(source, indices, size=size)


def _decode_plainly(source: VideoSource, indices: Indices, size: Size) -> Frames:
    """Decode from the start, convert what is wanted: the loop that people write."""
    wanted, last = set(indices.tolist()), int(indices.max())
    frame_of_index: dict[int, Frames] = {}
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "NONE", 1
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                rgb_HWC = frame.to_ndarray(format="rgb24", width=size[1], height=size[0], threads=1)
                frame_of_index[index] = rgb_HWC.astype(np.uint8, copy=False)
            if index == last:
                break
    return np.stack([frame_of_index[index] for index in indices.tolist()])


def _decode_by_decord(source: VideoSource, indices: Indices, size: Size) -> Frames:
    import decord

    reader = decord.VideoReader(str(source), ctx=decord.cpu(0), width=size[1], height=size[0], num_threads=1)
    return reader.get_batch(indices).asnumpy()


def _decode_by_decord_and_resize(source: VideoSource, indices: Indices, size: Size) -> Frames:
    import decord

    reader = decord.VideoReader(str(source), ctx=decord.cpu(0), num_threads=1)
    return _resize(torch.from_numpy(reader.get_batch(indices).asnumpy()), size)


def _decode_by_torchcodec(
    source: VideoSource, indices: Indices, size: Size, *, is_scaling: bool, stream_index: int | None = None
) -> Frames:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(
        source if isinstance(source, bytes) else str(source),
        stream_index=stream_index,
        dimension_order="NHWC",
        num_ffmpeg_threads=1,
        seek_mode="approximate",
        transforms=[Resize(size)] if is_scaling else None,
    )
    return _resize(decoder.get_frames_at(indices.tolist()).data, size)


def _resize(frames_THWC: torch.Tensor, size: Size) -> Frames:
    if tuple(frames_THWC.shape[1:3]) != size:
        frames_TCHW = transforms.resize(frames_THWC.permute(0, 3, 1, 2), list(size), antialias=False)
        frames_THWC = frames_TCHW.permute(0, 2, 3, 1)
    return frames_THWC.numpy()
