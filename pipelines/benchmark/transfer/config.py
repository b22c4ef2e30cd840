"""What can be set when the transfer suite measures."""

from pathlib import Path

from pydantic import Field, PositiveInt

from pipelines.benchmark.measuring.small_network import SMALL_T3D
from pipelines.networks.config import ModelConfig, T3DConfig
from pipelines.settings.section import Section, UserPath


class TransferSuiteConfig(Section):
    """What a pair costs by the literal recipe, rolled, and with cached features; and the transfer's input."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/ucf101_mixed"),)
    """Folders of videos for the input; where all are missing, videos that the benchmark makes."""
    clips_per_folder: PositiveInt = 100
    """Videos taken from each."""
    model: ModelConfig = T3DConfig(kind="t3d_121")
    """The student."""
    teacher: str = "densenet121"
    """A torchvision network, with random weights."""
    num_frames: PositiveInt = 32
    """Frames a clip, all of which the teacher sees."""
    crop_size: PositiveInt = 112
    """Pixels of the student's crop."""
    teacher_crop_size: PositiveInt = 112
    """Pixels of the teacher's crop; in the recipe of the paper 224, which makes the teacher four times as dear."""
    batch_size: PositiveInt = 4
    """Clips a step."""
    cached_views: PositiveInt = 8
    """Views of a row whose features are computed, for their cost a pair."""
    epochs: PositiveInt = 150
    """Epochs over which that cost is spread (paper 4.4)."""
    input_batch_size: PositiveInt = 16
    """Clips a batch of the input."""
    input_num_batches: PositiveInt = 48
    """Batches a round of the input."""
    memory_model: ModelConfig = SMALL_T3D
    """The student of the run whose memory is measured, on cached features."""
    memory_epochs: PositiveInt = Field(21, ge=3)
    """Its epochs; the first is not counted."""
