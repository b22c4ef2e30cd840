"""Which network, of which size: one section a family; each is checked again by the network that is built from it."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from pipelines.settings.section import Fraction, Role, Section
from t3d_core.model_names import TransitionForm, TtlPreset

T3DKind = Literal[
    "t3d", "t3d_121", "t3d_169", "t3d_121_depths_1", "t3d_121_depths_1_3", "t3d_121_depths_3", "t3d_121_without_6"
]
Depths = tuple[tuple[PositiveInt, ...], ...]


class _NetConfig(Section):
    """What `build_model` takes is what is set."""

    def arguments(self) -> dict[str, Any]:
        """What `build_model` takes beside the kind and the number of classes."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


class DenseNet3DConfig(_NetConfig):
    """A DenseNet3D of any size (paper Table 1)."""

    kind: Literal["densenet3d", "densenet3d_121", "densenet3d_169", "densenet3d_121_wide"] = "densenet3d"
    """densenet3d_121, _169: the blocks of Table 1; densenet3d: those of 121 unless told; _wide: costs as T3D-121."""
    block_config: tuple[PositiveInt, ...] | None = None
    """Dense layers a block; none: those of the kind."""
    growth_rate: PositiveInt | None = None
    """Channels each dense layer adds; none: 32, or that of the kind."""
    num_init_features: PositiveInt | None = None
    """Channels of the stem; none: 64, or those of the kind."""
    bn_size: PositiveInt = 4
    """Width of the 1x1x1 bottleneck in growth rates."""
    drop_rate: Fraction = 0.0
    """Dropout after each dense layer; not in the paper."""
    stem_pool_stride: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)
    """Time, height, width."""
    pool_time: tuple[bool, ...] | None = None
    """Whether each transition halves the frames; none: all do (paper Table 1)."""
    transition_forms: Annotated[TransitionForm | tuple[TransitionForm, ...] | None, Role.SPEED] = None
    """How transitions compute their sum, one for all or one each; none: pooled, then averaged. The result is the same,
    the speed another (`benchmark.py model`)."""


class T3DConfig(DenseNet3DConfig):
    """A T3D of any size: a DenseNet3D with temporal transition layers (paper 3.1)."""

    kind: T3DKind = "t3d"  # type: ignore[assignment]
    """t3d_121 and _169 have the blocks of Table 1; t3d those of 121 unless told; the others: T3D-121, other depths."""
    ttl_preset: TtlPreset = "growth"
    """Widths of the branches of a temporal transition layer."""
    temporal_depths: Depths | None = None
    """Kernel depths after each block; none: those of the kind, or of the preset (paper Table 1)."""


class _TtlConfig(_NetConfig):
    """Temporal transition layers as an option (paper 3.1: "in other architectures too")."""

    drop_rate: Fraction = 0.0
    """Dropout before the head; not in the paper."""
    ttl: bool = False
    """Put temporal transition layers after the stages of `ttl_stages`, in place of what halves the maps there."""
    ttl_stages: tuple[PositiveInt, ...] | None = None
    """Stages, from 1; none: all whose successor halves the frames."""
    temporal_depths: Depths | None = None
    """With `ttl`: kernel depths after each of these stages; none: those of Table 1, or of the preset."""
    ttl_preset: TtlPreset | None = None
    """With `ttl`: widths of the branches; none: growth."""
    pool_time: tuple[bool, ...] | None = None
    """With `ttl`: whether each layer halves the frames; none: where the net itself does."""
    transition_forms: Annotated[TransitionForm | tuple[TransitionForm, ...] | None, Role.SPEED] = None
    """With `ttl`: how the layers compute their sum, one for all or one each; none: pooled, then averaged."""


class ResNet3DConfig(_TtlConfig):
    """A 3D ResNet (paper Table 4, 8, 9)."""

    kind: Literal["resnet3d_18", "resnet3d_34", "resnet3d_50"] = "resnet3d_50"
    """Depth of the network."""
    stem: Literal["hara", "strided"] = "hara"
    """Stride of the first convolution along time: 1 (Hara et al.), or 2."""
    growth_rate: PositiveInt | None = None
    """With `ttl` and preset growth: channels of the branches deeper than one frame; none: 16."""


class Res3DConfig(_NetConfig):
    """torchvision's r3d_18: the Res3D of Tran et al. (paper Table 10)."""

    kind: Literal["res3d_18"] = "res3d_18"
    """Depth of the network."""
    drop_rate: Fraction = 0.0
    """Dropout before the head; not in the paper."""


class Inception3DConfig(_TtlConfig):
    """Inception3D, the I3D of Carreira and Zisserman (paper Table 4, 9, 10)."""

    kind: Literal["inception3d"] = "inception3d"
    """The network."""
    growth_rate: PositiveInt | None = None
    """With `ttl` and preset growth: channels of the branches deeper than one frame; none: 32."""


class C3DConfig(_NetConfig):
    """C3D with batch normalisation (paper Table 9)."""

    kind: Literal["c3d"] = "c3d"
    """The network."""
    drop_rate: Fraction = 0.0
    """Dropout after the fully connected layers."""


ModelConfig = Annotated[
    T3DConfig | DenseNet3DConfig | ResNet3DConfig | Res3DConfig | Inception3DConfig | C3DConfig,
    Field(discriminator="kind"),
]


class ComputeConfig(Section):
    """How the network is run; what it computes stays the same, but for rounding."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: convolutions and matrix products in bfloat16 (autocast), checked against fp32 before the run."""
    channels_last: Annotated[bool, Role.ROUNDING] = True
    """Keep a position's channels side by side in memory; not in bf16 on a CPU, whose kernels are wrong then."""
    compile: Annotated[bool, Role.SPEED] = False
    """torch.compile: minutes at the first start on a machine, then from its cache on disk."""
    debug: Annotated[bool, Role.VIEW] = False
    """Search clips and features for values that are not finite."""
