"""A batch of clips becomes logits: DenseNet3D and T3D (paper 3.1, Table 1)."""

from t3d_core.models.build import ModelKind, build_model
from t3d_core.models.cost import count_macs, count_parameters, count_saved_bytes
from t3d_core.models.densenet3d import DenseNet3D, densenet3d_121, densenet3d_169
from t3d_core.models.t3d import T3D, t3d_121, t3d_169
from t3d_core.models.temporal_transition import TemporalTransitionLayer, TtlPreset, branch_channels_of_preset

__all__ = [
    "T3D",
    "DenseNet3D",
    "ModelKind",
    "TemporalTransitionLayer",
    "TtlPreset",
    "branch_channels_of_preset",
    "build_model",
    "count_macs",
    "count_parameters",
    "count_saved_bytes",
    "densenet3d_121",
    "densenet3d_169",
    "t3d_121",
    "t3d_169",
]
