"""The settings of the decode suite."""

from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from pipelines.settings.section import Section, UserPath


class DecodeSuiteConfig(Section):
    """Measure how fast samples are read from files and from shards."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/single_clips"), Path("../shared/data/ucf101_mixed"))
    """Folders of videos. The table lists those that are missing."""
    clips_per_folder: PositiveInt = 5
    """Videos taken from each folder, evenly spread over its sorted names."""
    num_frames: PositiveInt = 32
    """Frames per sample (the paper: 32, Table 3)."""
    frame_stride: PositiveInt = 2
    """Distance between a sample's frames (the paper: 2, Table 6)."""
    short_side: PositiveInt = 256
    """Short side in pixels to which frames are scaled (paper 4.4)."""
    crop_size: PositiveInt = 224
    """Side of the square crop in pixels (paper 4.4)."""
    num_places: PositiveInt = 4
    """Samples per video in every round, at random places."""
    generated_num_frames: NonNegativeInt = 250
    """Frames of the generated video, which has one key frame. 0: no such video."""
    generated_height: PositiveInt = 720
    """Height of the generated video in pixels."""
    generated_width: PositiveInt = 1280
    """Width of the generated video in pixels."""
    seed: NonNegativeInt = 0
    """Seed of the places and of the generated video."""
