"""What can be set when the train suite measures."""

from pathlib import Path

from pydantic import Field, PositiveInt

from pipelines.benchmark.measuring.small_network import SMALL_T3D
from pipelines.networks.config import ModelConfig, T3DConfig
from pipelines.settings.section import Section, UserPath


class TrainSuiteConfig(Section):
    """The whole path of training, beside a plain loop and other loaders."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/single_clips"), Path("../shared/data/ucf101_mixed"))
    """Folders of videos, each measured by itself; steps and memory on the last; where all are missing, on videos that
    the benchmark makes."""
    model: ModelConfig = T3DConfig(kind="t3d_121")
    """The network of the steps."""
    num_frames: PositiveInt = 16
    """Frames a clip of the steps."""
    crop_size: PositiveInt = 112
    """Pixels of the steps' clips, cut out of frames of 8/7 of it."""
    batch_size: PositiveInt = 4
    """Clips a step."""
    num_steps: PositiveInt = 16
    """Steps a round, of which the first quarter is not timed."""
    input_num_frames: PositiveInt = 32
    """Frames a clip of the input (the paper: 32, Table 3)."""
    input_short_side: PositiveInt = 256
    """Short side in pixels to which its frames are scaled (paper 4.4)."""
    input_crop_size: PositiveInt = 224
    """Side of the square that is cut out (paper 4.4)."""
    input_batch_size: PositiveInt = 16
    """Clips a batch of the input."""
    input_num_batches: PositiveInt = 96
    """Batches a round of what reads shards."""
    peer_num_batches: PositiveInt = 16
    """Batches a round of what reads the sources."""
    memory_model: ModelConfig = SMALL_T3D
    """The network of the run whose memory is measured."""
    memory_epochs: PositiveInt = Field(21, ge=3)
    """Its epochs; the first is not counted."""
    memory_num_videos: PositiveInt = 96
    """Training videos of that run."""
