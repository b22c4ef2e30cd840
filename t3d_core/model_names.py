"""The names of networks and of their forms: what settings need of `models`, without PyTorch."""

from typing import Literal

ModelKind = Literal[
    "t3d",
    "t3d_121",
    "t3d_169",
    "densenet3d",
    "densenet3d_121",
    "densenet3d_169",
    "resnet3d_18",
    "resnet3d_34",
    "resnet3d_50",
    "res3d_18",
    "inception3d",
    "c3d",
    "densenet3d_121_wide",
    "t3d_121_depths_1",
    "t3d_121_depths_1_3",
    "t3d_121_depths_3",
    "t3d_121_without_6",
]
TtlPreset = Literal["growth", "thirds", "official128"]
TransitionForm = Literal["literal", "pooled", "averaged", "space_to_depth"]
