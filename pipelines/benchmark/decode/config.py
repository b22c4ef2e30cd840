"""What can be set when the decode suite measures."""

from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from pipelines.settings.section import Section, UserPath


class DecodeSuiteConfig(Section):
    """Samples from files and from shards."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/single_clips"), Path("../shared/data/ucf101_mixed"))
    """Folders of videos; one that is not there is named in the table."""
    clips_per_folder: PositiveInt = 5
    """Videos taken from each folder, evenly spread over its sorted names."""
    num_frames: PositiveInt = 32
    """Frames a sample (the paper: 32, Table 3)."""
    frame_stride: PositiveInt = 2
    """Distance of a sample's frames (the paper: 2, Table 6)."""
    short_side: PositiveInt = 256
    """Short side in pixels to which frames are scaled (paper 4.4)."""
    crop_size: PositiveInt = 224
    """Side of the square that is cut out (paper 4.4)."""
    num_places: PositiveInt = 4
    """Samples a video in every round, at random places."""
    generated_num_frames: NonNegativeInt = 250
    """Frames of the video that the benchmark makes, with one key frame; 0 for none."""
    generated_height: PositiveInt = 720
    """Its height in pixels."""
    generated_width: PositiveInt = 1280
    """Its width in pixels."""
    seed: NonNegativeInt = 0
    """Of the places and of the generated picture."""
