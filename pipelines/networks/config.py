"""Which network, of which size: one section for each family; the network built from it checks it again."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from pipelines.settings.section import Fraction, Role, Section
from t3d_core.model_names import TransitionForm, TtlPreset

T3DKind = Literal[
    "t3d", "t3d_121", "t3d_169", "t3d_121_depths_1", "t3d_121_depths_1_3", "t3d_121_depths_3", "t3d_121_without_6"
]
Depths = tuple[tuple[PositiveInt, ...], ...]


class _NetConfig(Section):
    """The settings are the arguments of `build_model`."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of `build_model` other than the kind and the number of classes."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


class DenseNet3DConfig(_NetConfig):
    """A DenseNet3D of any size (paper Table 1)."""

    kind: Literal["densenet3d", "densenet3d_121", "densenet3d_169", "densenet3d_121_wide"] = "densenet3d"
    """Variant of the network. densenet3d_121 and densenet3d_169 have the blocks of Table 1; densenet3d has those of 121
    by default; densenet3d_121_wide costs as much as T3D-121."""
    block_config: tuple[PositiveInt, ...] | None = None
    """Number of dense layers in each block. By default that of the kind."""
    growth_rate: PositiveInt | None = None
    """Channels that each dense layer adds. By default 32, or the value of the kind."""
    num_init_features: PositiveInt | None = None
    """Channels of the stem. By default 64, or the value of the kind."""
    bn_size: PositiveInt = 4
    """Width of the 1x1x1 bottleneck, in multiples of the growth rate."""
    drop_rate: Fraction = 0.0
    """Dropout after each dense layer; not in the paper."""
    stem_pool_stride: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)
    """Stride of the stem's max pool along time, height and width."""
    pool_time: tuple[bool, ...] | None = None
    """Whether each transition halves the number of frames. By default all do (paper Table 1)."""
    transition_forms: Annotated[TransitionForm | tuple[TransitionForm, ...] | None, Role.SPEED] = None
    """How transitions compute their sum: one form for all, or one for each. By default the first is pooled and the
    others are averaged. The result is the same, only the speed differs (`benchmark.py model`)."""


class T3DConfig(DenseNet3DConfig):
    """A T3D of any size: a DenseNet3D with temporal transition layers (paper 3.1)."""

    kind: T3DKind = "t3d"  # type: ignore[assignment]
    """Variant of the network. t3d_121 and t3d_169 have the blocks of Table 1; t3d has those of 121 by default; the
    others are T3D-121 with other kernel depths."""
    ttl_preset: TtlPreset = "growth"
    """Widths of the branches of a temporal transition layer."""
    temporal_depths: Depths | None = None
    """Kernel depths after each block. By default those of the kind, or of the preset (paper Table 1)."""


class _TtlConfig(_NetConfig):
    """Temporal transition layers as an option (paper 3.1: "in other architectures too")."""

    drop_rate: Fraction = 0.0
    """Dropout before the head; not in the paper."""
    ttl: bool = False
    """Put temporal transition layers after the stages of `ttl_stages`, in place of what halves the maps there."""
    ttl_stages: tuple[PositiveInt, ...] | None = None
    """Stages that a layer of `ttl` follows, numbered from 1. By default all whose next stage halves the frames."""
    temporal_depths: Depths | None = None
    """With `ttl`: kernel depths after each of these stages. By default those of Table 1, or of the preset."""
    ttl_preset: TtlPreset | None = None
    """With `ttl`: widths of the branches. By default growth."""
    pool_time: tuple[bool, ...] | None = None
    """With `ttl`: whether each layer halves the number of frames. By default it does where the network itself would."""
    transition_forms: Annotated[TransitionForm | tuple[TransitionForm, ...] | None, Role.SPEED] = None
    """With `ttl`: how the layers compute their sum, one form for all or one for each. By default the first is pooled
    and the others are averaged."""


class ResNet3DConfig(_TtlConfig):
    """A 3D ResNet (paper Table 4, 8, 9)."""

    kind: Literal["resnet3d_18", "resnet3d_34", "resnet3d_50"] = "resnet3d_50"
    """Depth of the network."""
    stem: Literal["hara", "strided"] = "hara"
    """Stride of the first convolution along time: 1 (Hara et al.), or 2."""
    growth_rate: PositiveInt | None = None
    """With `ttl` and preset growth: channels of the branches deeper than one frame. By default 16."""


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
    """With `ttl` and preset growth: channels of the branches deeper than one frame. By default 32."""


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
    """How the network is run; what it computes stays the same, except for rounding."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of convolutions and matrix products. bf16 (autocast) is checked against fp32 before the run."""
    channels_last: Annotated[bool, Role.ROUNDING] = True
    """Keep the channels of a position next to each other in memory. It has no effect in bf16 on a CPU, because the
    kernels are wrong there."""
    compile: Annotated[bool, Role.SPEED] = False
    """Compile the network with torch.compile. The first start on a machine takes minutes; later starts use the cache on
    disk."""
    debug: Annotated[bool, Role.VIEW] = False
    """Check clips and features for values that are not finite."""


class ScoringComputeConfig(ComputeConfig):
    """How the network is run in testing."""

    transition_forms: TransitionForm | tuple[TransitionForm, ...] | None = None
    """How transitions compute their sum, if this machine is another than that of the training. By default as the
    weights file states."""

    fold_batch_norm: bool = True
    """Fold batch norms into the convolutions before them."""
