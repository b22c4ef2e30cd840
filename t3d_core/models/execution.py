"""How a network is run: precision, memory layout, recomputation, compilation. What it computes stays the same."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from t3d_core.errors import UserError
from t3d_core.models.bf16_check import Bf16Differences, check_bf16
from t3d_core.models.executable_net import ExecutableNet

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Execution:
    """How a network is run.

    Attributes:
        precision: `bf16` runs convolutions in bfloat16 by autocast; weights and what follows `features` stay float32.
        channels_last: Whether channels lie side by side in memory; never in bf16 on a CPU: it is wrong there.
        recompute: Whether layers keep their input alone for backward and compute the rest once more there.
        compile: Whether `torch.compile` makes kernels for the network: minutes at the first start on a machine, then
            they come from PyTorch's cache on disk (TORCHINDUCTOR_CACHE_DIR). Not with `recompute`, which PyTorch cannot
            compile where statistics are left alone.
        debug: Whether clips and features are searched for values that are not finite.
    """

    precision: Precision = "fp32"
    channels_last: bool = True
    recompute: bool = False
    compile: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        if self.compile and self.recompute:
            raise UserError("compile and recompute cannot be combined: choose one")

    def prepare(
        self, net: nn.Module, *, num_frames: int, size: int, batch_size: int, is_trained: bool
    ) -> list[Bf16Differences]:
        """Set up every `ExecutableNet` in `net`, which is on its device already; `autocast` is left to the caller.

        Args:
            net: A network of the family or a 2D twin, or one that contains some.
            num_frames: Frames of the clips that it will see.
            size: Their height and width in pixels.
            batch_size: Clips that it will see at once.
            is_trained: Whether it will be trained: then bf16 must give right gradients, too.

        Returns:
            What was measured of each network in bf16; nothing in fp32.

        Raises:
            UserError: bf16 gives other features or gradients than float32 there, or layers cannot be recomputed.
        """
        measured = []
        for part in [module for module in net.modules() if isinstance(module, ExecutableNet)]:
            # On a CPU oneDNN's bf16 backward gives other weight gradients at every call, up to NaN, where maps are tiny
            # and their channels lie last; contiguous ones are right more often.
            is_cpu_bf16 = self.precision == "bf16" and next(part.parameters()).device.type == "cpu"
            if self.channels_last and not is_cpu_bf16:
                part.to(memory_format=part.channels_last)
            part.set_recompute(self.recompute)
            part.is_debugging = self.debug
            if self.precision == "bf16":
                measured.append(
                    check_bf16(part, num_frames=num_frames, size=size, batch_size=batch_size, is_trained=is_trained)
                )
            if self.compile:
                part.compiled_part().compile()
        return measured

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which forward passes are to run."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
