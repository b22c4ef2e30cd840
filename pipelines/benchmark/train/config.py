"""The settings of the train suite."""

from pathlib import Path

from pydantic import Field, PositiveInt

from pipelines.benchmark.measuring.small_network import SMALL_T3D
from pipelines.networks.config import ModelConfig, T3DConfig
from pipelines.settings.section import Section, UserPath


class TrainSuiteConfig(Section):
    """Measure the whole path of training, compared with a plain loop and other loaders."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/single_clips"), Path("../shared/data/ucf101_mixed"))
    """Folders of videos, each measured separately. Steps and memory are measured on the last. If all are missing, the
    benchmark generates videos."""
    model: ModelConfig = T3DConfig(kind="t3d_121")
    """Network of the steps."""
    num_frames: PositiveInt = 16
    """Frames per clip of the steps."""
    crop_size: PositiveInt = 112
    """Side of the steps' clips in pixels, cropped from frames of 8/7 of that size."""
    batch_size: PositiveInt = 4
    """Clips per step."""
    num_steps: PositiveInt = 16
    """Steps per round; the first quarter is not timed."""
    input_num_frames: PositiveInt = 32
    """Frames per clip of the input (the paper: 32, Table 3)."""
    input_short_side: PositiveInt = 256
    """Short side in pixels to which the input's frames are scaled (paper 4.4)."""
    input_crop_size: PositiveInt = 224
    """Side of the square crop of the input in pixels (paper 4.4)."""
    input_batch_size: PositiveInt = 16
    """Clips per batch of the input."""
    input_num_batches: PositiveInt = 96
    """Batches per round of the cases that read shards."""
    peer_num_batches: PositiveInt = 16
    """Batches per round of the cases that read the sources."""
    memory_model: ModelConfig = SMALL_T3D
    """Network of the run whose memory is measured."""
    memory_epochs: PositiveInt = Field(21, ge=3)
    """Epochs of the run whose memory is measured; the first does not count."""
    memory_num_videos: PositiveInt = 96
    """Training videos of the run whose memory is measured."""
