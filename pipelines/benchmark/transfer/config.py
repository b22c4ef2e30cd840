"""The settings of the transfer suite."""

from pathlib import Path

from pydantic import Field, PositiveInt

from pipelines.benchmark.measuring.small_network import SMALL_T3D
from pipelines.networks.config import ModelConfig, T3DConfig
from pipelines.settings.section import Section, UserPath


class TransferSuiteConfig(Section):
    """Measure a pair's cost by the literal recipe, rolled, and with cached features; and the transfer's input."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/ucf101_mixed"),)
    """Folders of videos for the input. If all are missing, the benchmark generates videos."""
    clips_per_folder: PositiveInt = 100
    """Videos taken from each folder."""
    model: ModelConfig = T3DConfig(kind="t3d_121")
    """Network of the student."""
    teacher: str = "densenet121"
    """Teacher: a torchvision network, with random weights."""
    num_frames: PositiveInt = 32
    """Frames per clip; the teacher sees all of them."""
    crop_size: PositiveInt = 112
    """Side of the student's crop in pixels."""
    teacher_crop_size: PositiveInt = 112
    """Side of the teacher's crop in pixels. The recipe of the paper has 224, at four times the cost."""
    batch_size: PositiveInt = 4
    """Clips per step."""
    cached_views: PositiveInt = 8
    """Views per row whose features are computed; their cost is spread over the pairs."""
    epochs: PositiveInt = 150
    """Epochs over which the cost of the views is spread (paper 4.4)."""
    input_batch_size: PositiveInt = 16
    """Clips per batch of the input."""
    input_num_batches: PositiveInt = 48
    """Batches per round of the input."""
    memory_model: ModelConfig = SMALL_T3D
    """Student of the run whose memory is measured, which uses cached features."""
    memory_epochs: PositiveInt = Field(21, ge=3)
    """Epochs of the run whose memory is measured; the first does not count."""
