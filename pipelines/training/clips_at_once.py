"""How many clips batch norms and pairs see at once is a setting: a resume on other workers keeps it or is refused.

A worker's whole part of the batch is 32 clips on one worker and 4 on eight. Without `micro_batch_size`, the first start
therefore settles the size of a forward pass, and `run.json` keeps it.
"""

from collections.abc import Mapping

from pipelines.settings.build import changed
from pipelines.training.config import RunConfig
from t3d_core.errors import UserError


def clips_at_once(config: RunConfig) -> dict[str, int]:
    """The clips of a forward pass, and those over which batch norms take their statistics, as `run.json` keeps them."""
    return {"micro_batch_size": config.smallest_batch(), "batch_norm_clips": config.batch_norm_clips()}


def with_clips_at_once(config: RunConfig, settled: Mapping[str, int], *, run: str) -> RunConfig:
    """The settings with the micro-batches of the run's first start; on one worker mostly the settings themselves.

    Args:
        config: of this start.
        settled: `clips_at_once` of the first start.
        run: kind, name and place of the run, for messages.

    Raises:
        UserError: the workers of this start cannot have them.
    """
    size, num_clips, scaling = settled["micro_batch_size"], config.global_batch_size, config.scaling
    if scaling.most_workers() <= 1 and config.smallest_batch() == size:
        return config
    if num_clips // size < scaling.most_workers():
        raise UserError(
            f"{run} began with {size} clips in a forward pass, which its batch norms and pairs see, so that "
            f"{num_clips} clips a step are {num_clips // size} parts, too few for scaling.num_workers "
            f"{scaling.num_workers}: resume it with --scaling.num_workers {num_clips // size} or fewer"
        )
    resolved = changed(config, {"micro_batch_size": size})
    if resolved.batch_norm_clips() != settled["batch_norm_clips"]:
        num_workers = settled["batch_norm_clips"] // size
        raise UserError(
            f"{run} began with batch norms over {settled['batch_norm_clips']} clips (compute.sync_batch_norm), which "
            f"scaling.num_workers {scaling.num_workers} changes to {resolved.batch_norm_clips()}: resume it with "
            f"--scaling.num_workers {num_workers}"
        )
    return resolved
