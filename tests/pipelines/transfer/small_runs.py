"""A teacher of somebody's, and settings of small transfers."""

import torch
from torch import nn

from pipelines.transfer.config import TransferConfig


class MeanColour(nn.Module):
    """A 2D network of somebody's."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, image_NCHW):
        return self.scale * image_NCHW.mean(dim=(2, 3))


def transfer_config(teacher, tmp_path):
    return TransferConfig(
        data={"shards": (tmp_path / "no_shards",)},
        model={"kind": "t3d", "growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 16, "bn_size": 2},
        clip={"num_frames": 16, "crop_size": 32},
        teacher=teacher,
    )
