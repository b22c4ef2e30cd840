"""What can be set when the search suite measures."""

from pathlib import Path

from pydantic import Field, PositiveInt

from pipelines.networks.config import ModelConfig, T3DConfig
from pipelines.settings.section import Section, UserPath


class SearchSuiteConfig(Section):
    """What a search costs beyond its trials' own steps, and a comparison of many runs."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/ucf101_mixed"),)
    """Folders of videos to train on; where all are missing, videos that the benchmark makes."""
    num_videos: PositiveInt = 96
    """Videos an epoch."""
    model: ModelConfig = T3DConfig(
        kind="t3d", growth_rate=8, block_config=(3, 3, 3, 3), num_init_features=24, bn_size=2
    )
    """The network of the trials."""
    epochs: PositiveInt = 16
    """Epochs a trial."""
    num_trials: PositiveInt = Field(6, ge=2)
    """Trials; the first is not counted."""
    num_runs: tuple[PositiveInt, ...] = (200, 1000)
    """Runs of the stores whose comparison is measured, the smallest first."""
    num_points: PositiveInt = 200
    """Points of each of two curves of such a run."""
    num_tested: PositiveInt = 100
    """Videos on which such a run was tested, compared one by one."""
