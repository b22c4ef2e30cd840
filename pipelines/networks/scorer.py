"""A loaded network and the settings of a test become a scorer of clips."""

from collections.abc import Callable

import torch

from pipelines.networks.config import ScoringComputeConfig
from t3d_core.errors import UserError
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


class ActorScorer:
    """A scorer inside an actor; its first UserError is kept as text.

    Ray would wrap an exception, and lose one of a constructor.

    Attributes:
        refusal: why it scores nothing (any more); empty while it works.
    """

    def __init__(self, loaded: LoadedModel, *, compute: ScoringComputeConfig, batch_size: int, use_gpu: bool) -> None:
        """Set up a scorer; the arguments are those of `make_scorer`."""
        self.refusal = ""
        try:
            self._scorer = make_scorer(loaded, compute=compute, batch_size=batch_size, use_gpu=use_gpu)
        except UserError as error:
            self.refusal = str(error)

    def run(self, work: Callable[[ClipScorer], None]) -> None:
        """Call `work` with the scorer, unless there is a refusal."""
        if self.refusal:
            return
        try:
            work(self._scorer)
        except UserError as error:
            self.refusal = str(error)
