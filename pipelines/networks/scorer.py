"""A loaded network and the settings of a test become a scorer of clips."""

import torch

from pipelines.networks.config import ScoringComputeConfig
from t3d_core.models.execution import Execution
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.training.checkpoint import LoadedModel


def make_scorer(loaded: LoadedModel, *, compute: ScoringComputeConfig, batch_size: int, use_gpu: bool) -> ClipScorer:
    """Set up a network for testing; print what was measured on the way.

    Args:
        loaded: the network.
        compute: how it is run.
        batch_size: as in `ClipScorer`.
        use_gpu: on the GPU of this process, or on its CPUs.

    Raises:
        UserError: `compute` cannot work here.
    """
    scorer = ClipScorer(
        loaded,
        device=torch.device("cuda" if use_gpu else "cpu"),
        batch_size=batch_size,
        execution=Execution(**compute.model_dump(exclude={"fold_batch_norm", "transition_forms"})),
        fold_batch_norm=compute.fold_batch_norm,
    )
    for note in scorer.notes:
        print(note, flush=True)
    return scorer
