"""What a network lets be done to it so that it can be set up for a device: the family's nets, and a student's 2D twin.

clip_BCTHW is a float tensor (batch, 3, frames, height, width), normalised.
"""

import torch
from torch import Tensor, nn

from t3d_core.errors import UserError


class ExecutableNet(nn.Module):
    """A network of clips that `Execution.prepare` sets up.

    Attributes:
        channels_last: Memory format in which the channels of its maps lie side by side.
        is_debugging: Whether clips and features are searched for values that are not finite; false by default.
    """

    channels_last: torch.memory_format
    is_debugging: bool = False

    def compiled_part(self) -> nn.Module:
        """Return the part that `torch.compile` makes kernels for."""
        raise NotImplementedError

    def set_recompute(self, is_recomputed: bool) -> None:
        """Keep the activations of every layer for backward, or compute them once more there.

        Raises:
            UserError: The layers of this network can only be kept.
        """
        raise NotImplementedError

    def forward_features(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the features of clips: as many rows for each clip, one clip after the other."""
        raise NotImplementedError


def check_finite(values: Tensor, what: str) -> None:
    """Raise a UserError when a batch of `what` holds values that are not finite."""
    if not torch.isfinite(values).all():
        counts = (~torch.isfinite(values)).flatten(1).sum(dim=1).tolist()
        raise UserError(
            f"the {what} of a batch hold values that are not finite (NaN or infinite): {counts} of "
            f"{values[0].numel()} each; expected finite ones"
        )
