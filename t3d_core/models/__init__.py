"""A batch of clips becomes logits: the 3D ConvNets that the paper trains or compares with (3.1, Tables 1, 4, 9)."""

from typing import TYPE_CHECKING

from t3d_core.model_names import ModelKind, TransitionForm, TtlPreset
from t3d_core.models.build import CONTROLS, build_model, res3d_18
from t3d_core.models.c3d import C3D, c3d
from t3d_core.models.cost import count_macs, count_parameters, count_saved_bytes, count_training_macs, saved_bytes
from t3d_core.models.densenet3d import DenseNet3D, densenet3d_121, densenet3d_121_wide, densenet3d_169
from t3d_core.models.inception3d import Inception3D, inception3d
from t3d_core.models.resnet3d import ResNet3D, resnet3d_18, resnet3d_34, resnet3d_50
from t3d_core.models.t3d import T3D, t3d_121, t3d_169
from t3d_core.models.temporal_transition import TemporalTransitionLayer, branch_channels_of_preset
from t3d_core.models.video_net import VideoNet

__all__ = [
    "C3D",
    "CONTROLS",
    "T3D",
    "DenseNet3D",
    "Inception3D",
    "ModelKind",
    "Res3D",
    "ResNet3D",
    "TemporalTransitionLayer",
    "TransitionForm",
    "TtlPreset",
    "VideoNet",
    "branch_channels_of_preset",
    "build_model",
    "c3d",
    "count_macs",
    "count_parameters",
    "count_saved_bytes",
    "count_training_macs",
    "densenet3d_121",
    "densenet3d_121_wide",
    "densenet3d_169",
    "inception3d",
    "res3d_18",
    "resnet3d_18",
    "resnet3d_34",
    "resnet3d_50",
    "saved_bytes",
    "t3d_121",
    "t3d_169",
]

if TYPE_CHECKING:
    from t3d_core.models.res3d import Res3D
else:

    def __getattr__(name: str) -> type:
        # Imported only here: torchvision takes as long as PyTorch itself, and no other network needs it.
        if name == "Res3D":
            from t3d_core.models.res3d import Res3D

            return Res3D
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
