"""What can be set when the model suite measures."""

from pydantic import PositiveInt

from pipelines.settings.section import Section
from t3d_core.model_names import ModelKind


class ModelSuiteConfig(Section):
    """Cost of the networks."""

    models: tuple[ModelKind, ...] = (
        *("t3d_121", "densenet3d_121", "t3d_169", "densenet3d_169"),
        *("resnet3d_18", "resnet3d_34", "resnet3d_50", "inception3d", "c3d"),
    )
    """Model kinds to measure beside torchvision's r3d_18, mc3_18, r2plus1d_18, s3d, mvit_v1_b and swin3d_t."""
    switches_of: ModelKind | None = "t3d_121"
    """Model whose transitions are timed in every form, and which is measured under every switch; none: no model."""
    num_frames: PositiveInt = 32
    """Frames a clip (paper Table 3)."""
    crop_size: PositiveInt = 112
    """Height and width of a clip in pixels (the paper: 224, Table 5)."""
    batch_size: PositiveInt = 2
    """Clips a batch."""
    compile: bool = False
    """Measure torch.compile too: minutes more."""
    memory: bool = True
    """Measure the peak resident memory of every case, in a process of its own."""
