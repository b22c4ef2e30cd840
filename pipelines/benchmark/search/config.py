"""The settings of the search suite."""

from pathlib import Path

from pydantic import Field, PositiveInt

from pipelines.benchmark.measuring.small_network import SMALL_T3D
from pipelines.networks.config import ModelConfig
from pipelines.settings.section import Section, UserPath


class SearchSuiteConfig(Section):
    """Measure what a search costs beyond its trials' own steps, and a comparison of many runs."""

    clips: tuple[UserPath, ...] = (Path("../shared/data/ucf101_mixed"),)
    """Folders of videos to train on. If all are missing, the benchmark generates videos."""
    num_videos: PositiveInt = 96
    """Videos per epoch."""
    model: ModelConfig = SMALL_T3D
    """Network of the trials."""
    epochs: PositiveInt = 16
    """Epochs per trial."""
    num_trials: PositiveInt = Field(6, ge=2)
    """Number of trials, of which the first does not count."""
    num_runs: tuple[PositiveInt, ...] = (200, 1000)
    """Numbers of runs whose comparison is measured, the smallest first."""
    num_points: PositiveInt = 200
    """Points of each of the two curves of such a run."""
    num_tested: PositiveInt = 100
    """Test videos of such a run, which are compared one by one."""
