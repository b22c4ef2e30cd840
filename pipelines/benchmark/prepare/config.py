"""The settings of the prepare suite."""

from pathlib import Path

from pydantic import Field, PositiveInt

from pipelines.settings.section import Section, UserPath


class PrepareSuiteConfig(Section):
    """Measure time and memory of the whole stage, compared with a plain loop."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/ucf101_mixed"),)
    """Folders of videos. If they have none, the benchmark generates some of UCF101's size."""
    num_copied: PositiveInt = 400
    """Clips per round that are stored by stream copy; they are links to those videos, repeated."""
    num_encoded: PositiveInt = 96
    """Clips per round that are encoded as H.264 with at most 256 pixels on the short side."""
    videos_per_shard: PositiveInt = 8
    """Videos per shard. Small shards give every core equal work; the larger shards of jobs cost less per clip."""
    memory_num_videos: tuple[PositiveInt, ...] = Field((200, 2_000, 20_000), min_length=1)
    """Numbers of tiny videos in the runs whose memory is compared."""
    manifest_num_ids: PositiveInt = 500_000
    """Number of YouTube ids in the manifest that is planned."""
