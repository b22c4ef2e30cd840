"""Our decoder and its peers behind one signature: a file and frame indices go in, scaled and cropped frames come out.

decord and torchcodec are no dependencies of this project (the extra `benchmark` installs them); torchcodec also needs
FFmpeg's shared libraries on the machine (Debian: libavcodec59 libavformat59 libavfilter8 libavdevice59). All are set
to one thread. Shape letters: T frames, H height, W width, C = 3 colours.

Ours and the plain loop scale with FFmpeg's swscale (bilinear). Decord and torchcodec are measured in both ways that
they offer. The first scales during decoding, where torchcodec also crops. The second decodes at full size and then
uses torchvision's bilinear `resize` on bytes. Decoders that do not crop are followed by a crop in numpy.
"""

from collections.abc import Callable
from functools import partial
from importlib import metadata

import av
import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2.functional import resize

from t3d_core.video.container import VideoSource
from t3d_core.video.cropping import Crop, crop_frames
from t3d_core.video.decoding import decode_frames

Indices = npt.NDArray[np.int64]
Frames = npt.NDArray[np.uint8]
Size = tuple[int, int]
# (source, frame indices, height and width to scale to, crop) -> frames_THWC
Decoder = Callable[[VideoSource, Indices, Size, Crop], Frames]

OURS, PLAIN = "ours", "plain loop"


def source_decoders(*, is_scaled: bool, stream_index: int | None = None) -> dict[str, Decoder]:
    """Ours and the peers that read a file; if frames are not scaled, decord has one way instead of two.

    `stream_index` is the file's first video stream, the one that ours reads; decord has no such option.
    """
    decoders: dict[str, Decoder] = {
        OURS: _decode_ours,
        PLAIN: _decode_plainly,
        "decord": _decode_by_decord,
        "torchcodec": partial(_decode_by_torchcodec, stream_index=stream_index),
        "torchcodec, resize": partial(_decode_by_torchcodec_and_resize, stream_index=stream_index),
    }
    if is_scaled:
        decoders["decord, resize"] = _decode_by_decord_and_resize
    return decoders


def segment_decoders(*, key_distance: int | None) -> dict[str, Decoder]:
    """The decoders that read an encoded segment from memory; ours also knows the key distance of its row."""
    return {
        OURS: partial(_decode_ours, key_distance=key_distance),
        "torchcodec": _decode_by_torchcodec,
        "torchcodec, resize": _decode_by_torchcodec_and_resize,
    }


def describe_versions() -> str:
    """The installed versions, in one line; call it after decoding, when torchcodec has found its FFmpeg."""
    found = [f"PyAV {av.__version__} (FFmpeg {av.ffmpeg_version_info})"]
    for name in ("decord", "torchcodec", "torch", "torchvision", "numpy"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return ", ".join(found)


def _decode_ours(
    source: VideoSource, indices: Indices, size: Size, crop: Crop, *, key_distance: int | None = None
) -> Frames:
    return decode_frames(source, indices, size=size, crop=crop, key_distance=key_distance)


def _decode_plainly(source: VideoSource, indices: Indices, size: Size, crop: Crop) -> Frames:
    """Decode from the start and convert the wanted frames: the loop that people write."""
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
    return crop_frames(np.stack([frame_of_index[index] for index in indices.tolist()]), crop)


def _decode_by_decord(source: VideoSource, indices: Indices, size: Size, crop: Crop) -> Frames:
    import decord

    reader = decord.VideoReader(str(source), ctx=decord.cpu(0), width=size[1], height=size[0], num_threads=1)
    return crop_frames(reader.get_batch(indices).asnumpy(), crop)


def _decode_by_decord_and_resize(source: VideoSource, indices: Indices, size: Size, crop: Crop) -> Frames:
    import decord

    reader = decord.VideoReader(str(source), ctx=decord.cpu(0), num_threads=1)
    return crop_frames(_resize(torch.from_numpy(reader.get_batch(indices).asnumpy()), size), crop)


def _decode_by_torchcodec(
    source: VideoSource, indices: Indices, size: Size, crop: Crop, *, stream_index: int | None = None
) -> Frames:
    """Scaled and cropped during decoding (at the centre, as all samples here)."""
    from torchcodec.transforms import CenterCrop, Resize

    transforms = [Resize(size), CenterCrop((crop.size, crop.size))]
    return _torchcodec_frames(source, indices, stream_index=stream_index, transforms=transforms).numpy()


def _decode_by_torchcodec_and_resize(
    source: VideoSource, indices: Indices, size: Size, crop: Crop, *, stream_index: int | None = None
) -> Frames:
    return crop_frames(_resize(_torchcodec_frames(source, indices, stream_index=stream_index), size), crop)


def _torchcodec_frames(
    source: VideoSource, indices: Indices, *, stream_index: int | None, transforms: list | None = None
) -> torch.Tensor:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(
        source if isinstance(source, bytes) else str(source),
        stream_index=stream_index,
        dimension_order="NHWC",
        num_ffmpeg_threads=1,
        seek_mode="approximate",
        transforms=transforms,
    )
    return decoder.get_frames_at(indices.tolist()).data


def _resize(frames_THWC: torch.Tensor, size: Size) -> Frames:
    if tuple(frames_THWC.shape[1:3]) != size:
        frames_TCHW = resize(frames_THWC.permute(0, 3, 1, 2), list(size), antialias=False)
        frames_THWC = frames_TCHW.permute(0, 2, 3, 1)
    return frames_THWC.numpy()
