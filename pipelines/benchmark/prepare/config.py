"""What can be set when the prepare suite measures."""

from pathlib import Path

from pydantic import Field, PositiveInt

from pipelines.settings.section import Section, UserPath


class PrepareSuiteConfig(Section):
    """The whole stage, beside a plain loop, and what it takes."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/ucf101_mixed"),)
    """Folders of videos; where they hold none the benchmark makes some of UCF101's size."""
    num_copied: PositiveInt = 400
    """Clips a round that are stored by stream copy: links to those videos, over and over."""
    num_encoded: PositiveInt = 96
    """Clips a round that are encoded as H.264 of 256 pixels on the short side at most."""
    videos_per_shard: PositiveInt = 8
    """Few, so that every core gets equal work; jobs make larger shards, which cost less a clip."""
    memory_num_videos: tuple[PositiveInt, ...] = Field((200, 2_000, 20_000), min_length=1)
    """Tiny videos of each run whose memory is compared."""
    manifest_num_ids: PositiveInt = 500_000
    """YouTube ids of the manifest that is planned."""
