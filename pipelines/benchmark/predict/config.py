"""The settings of the predict suite."""

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from pipelines.networks.config import ModelConfig, Res3DConfig
from pipelines.settings.section import Section, UserPath


class PredictSuiteConfig(Section):
    """Measure predictions of whole videos: the first answer, the rate and the memory, next to what people run."""

    videos: tuple[UserPath, ...] = ()
    """Folders of videos. If there are none, the benchmark generates videos."""
    num_videos: PositiveInt = Field(24, ge=2)
    """Videos taken from each folder, evenly spread over its sorted names; or generated."""
    generated_seconds: PositiveFloat = 10.0
    """Length of a generated video, at 25 frames a second."""
    generated_height: PositiveInt = 240
    """Height of the generated videos in pixels."""
    generated_width: PositiveInt = 320
    """Width of the generated videos in pixels."""
    model: ModelConfig = Res3DConfig(kind="res3d_18")
    """Our network, with random weights. By default torchvision's r3d_18, as the peers have it."""
    num_frames: PositiveInt = 16
    """Frames per clip (r3d_18: 16)."""
    frame_stride: PositiveInt = 2
    """Distance between a clip's frames."""
    crop_size: PositiveInt = 112
    """Side of the square crop in pixels (r3d_18: 112)."""
    batch_size: PositiveInt = 8
    """Clips that a network gets at once."""
    videomae_size: PositiveInt = Field(192, multiple_of=16)
    """Side in pixels of the clips of VideoMAE-S in Hugging Face's pipeline; with 192 a clip costs about as many
    multiply-adds as r3d_18's."""
    num_workers: PositiveInt = 1
    """Workers of Ray that run the network in the case on Ray."""
    num_requests: NonNegativeInt = 1000
    """Requests over which the memory of a server is watched; 0 leaves the server out."""
