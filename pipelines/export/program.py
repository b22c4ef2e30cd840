"""A network becomes one file that runs without this project: uint8 clips go in, class probabilities come out.

The file includes the normalisation, and the card of the weights as JSON under the key `t3d`. The batch may have any
size; frames and pixels are those of the card. Not part of the paper.

    torch_export   .pt2, a torch.export program      needs PyTorch
    onnx           .onnx                             needs onnxruntime or another runtime for ONNX

Legend: B clips, T frames, H x W pixels, C = 3 colours, K classes, D feature width.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from t3d_core.errors import UserError
from t3d_core.training.weights_card import METADATA_KEY, WeightsCard
from t3d_core.video.transforms import normalize_clip

INPUT_NAME = "clip_BTHWC"
_DYNAMIC_SHAPES = ({0: Dim("batch")},)

RunClips = Callable[[Tensor], Tensor]
"""What a file does: clip_BTHWC (uint8 RGB) to probabilities_BK or features_BD (float32)."""


class ClipModel(nn.Module):
    """The function that is exported: clip_BTHWC (uint8 RGB) to probabilities_BK, or to features_BD without a head.

    Args:
        net: A network of the family, in evaluation mode.
        card: Its card.
    """

    def __init__(self, net: nn.Module, card: WeightsCard) -> None:
        super().__init__()
        self.net, self.mean, self.std = net, card.mean, card.std
        self.has_head = bool(card.class_names)

    def forward(self, clip_BTHWC: Tensor) -> Tensor:
        """Normalise, run the network, and turn logits into probabilities."""
        clip_BCTHW = normalize_clip(clip_BTHWC, mean=self.mean, std=self.std)
        # Convolutions keep this layout: T3D-121 is a fifth faster on a CPU.
        output = self.net(clip_BCTHW.contiguous(memory_format=torch.channels_last_3d))
        return output.softmax(dim=1) if self.has_head else output


class ExportFormat(NamedTuple):
    """One way of writing the file.

    Attributes:
        packages: what must be installed in addition to PyTorch.
        runtime: the package that runs the file.
        write: writes a program and its card to a path of any name.
        open: reads such a file, for the CPU.
        example: Python that runs the file FILE.
    """

    packages: tuple[str, ...]
    runtime: str
    write: Callable[[ExportedProgram, WeightsCard, Path], None]
    open: Callable[[Path], RunClips]
    example: str

    def check_packages(self) -> None:
        """Refuse to start without the packages.

        Raises:
            UserError: some are not installed.
        """
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(f"this format needs {', '.join(missing)}: pip install 't3d[export]'")

    def describe_runtime(self) -> str:
        """The runtime and its version."""
        return f"{self.runtime} {version(self.runtime)}"


def trace(model: ClipModel, card: WeightsCard) -> ExportedProgram:
    """Record what `model` computes for clips of the card's size and any batch."""
    shape_THWC = (card.num_frames, card.crop_size, card.crop_size, 3)
    # Two clips, because a batch of one would count as a fixed size.
    example_BTHWC = torch.zeros(2, *shape_THWC, dtype=torch.uint8)
    # Without gradients, a run of the program keeps nothing for backward.
    return torch.export.export(model.eval().requires_grad_(False), (example_BTHWC,), dynamic_shapes=_DYNAMIC_SHAPES)


def output_name(card: WeightsCard) -> str:
    """Name of the output."""
    return "probabilities_BK" if card.class_names else "features_BD"


def _write_torch_export(program: ExportedProgram, card: WeightsCard, path: Path) -> None:
    with path.open("wb") as file:  # a path would have to end in .pt2
        torch.export.save(program, file, extra_files={METADATA_KEY: _card_json(card)})


def _open_torch_export(path: Path) -> RunClips:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(program: ExportedProgram, card: WeightsCard, path: Path) -> None:
    onnx_program = torch.onnx.export(
        program.run_decompositions({torch.ops.aten.adaptive_avg_pool3d.default: _adaptive_average}),
        dynamo=True,
        input_names=[INPUT_NAME],
        output_names=[output_name(card)],
        dynamic_shapes=_DYNAMIC_SHAPES,
        verbose=False,
    )
    assert onnx_program is not None, "no path was given"
    onnx_program.model.metadata_props[METADATA_KEY] = _card_json(card)
    onnx_program.save(str(path), external_data=False)


def _open_onnx(path: Path) -> RunClips:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda clip_BTHWC: torch.from_numpy(session.run(None, {INPUT_NAME: clip_BTHWC.numpy()})[0])


def _adaptive_average(x_BCTHW: Tensor, output_size: Sequence[int]) -> Tensor:
    """`adaptive_avg_pool3d` (of C3D) from operations that torch.onnx supports."""
    for dim, num_parts in enumerate(output_size, start=2):
        size = x_BCTHW.shape[dim]
        ranges = [(size * part // num_parts, -(-size * (part + 1) // num_parts)) for part in range(num_parts)]
        parts = [x_BCTHW.narrow(dim, first, stop - first).mean(dim, keepdim=True) for first, stop in ranges]
        x_BCTHW = torch.cat(parts, dim=dim)
    return x_BCTHW


def _card_json(card: WeightsCard) -> str:
    return json.dumps(asdict(card))


FORMATS = {
    "torch_export": ExportFormat(
        packages=(),
        runtime="torch",
        write=_write_torch_export,
        open=_open_torch_export,
        example=f"torch.export.load('FILE').module()({INPUT_NAME})",
    ),
    "onnx": ExportFormat(
        packages=("onnx", "onnxscript", "onnxruntime"),
        runtime="onnxruntime",
        write=_write_onnx,
        open=_open_onnx,
        example=f"onnxruntime.InferenceSession('FILE').run(None, {{'{INPUT_NAME}': {INPUT_NAME}}})[0]",
    ),
}
