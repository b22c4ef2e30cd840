"""The settings of the model suite."""

from pydantic import PositiveInt

from pipelines.settings.section import Section
from t3d_core.model_names import ModelKind


class ModelSuiteConfig(Section):
    """Cost of the networks."""

    models: tuple[ModelKind, ...] = (
        *("t3d_121", "densenet3d_121", "t3d_169", "densenet3d_169"),
        *("resnet3d_18", "resnet3d_34", "resnet3d_50", "inception3d", "c3d"),
    )
    """Model kinds to measure, in addition to torchvision's r3d_18, mc3_18, r2plus1d_18, s3d, mvit_v1_b and
    swin3d_t."""
    switches_of: ModelKind | None = "t3d_121"
    """Model that is measured under every switch, and whose transitions are timed in every form. null: no model."""
    num_frames: PositiveInt = 32
    """Frames per clip (paper Table 3)."""
    crop_size: PositiveInt = 112
    """Height and width of a clip in pixels (the paper: 224, Table 5)."""
    batch_size: PositiveInt = 2
    """Clips per batch."""
    compile: bool = False
    """Also measure torch.compile, which takes minutes more."""
    memory: bool = True
    """Also measure the peak resident memory of every case, each in a separate process."""
