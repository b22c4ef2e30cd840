"""2D weights become the initial weights of a run: named by a user, inflated and reported."""

from pathlib import Path

import torch

from pipelines.runtime.paths import input_path
from t3d_core.models import VideoNet, build_model
from t3d_core.training.weights_card import WeightsCard
from t3d_core.transfer.inflation import SOURCES, inflate, load_2d_state


def inflated_net(source: str, card: WeightsCard, *, seed: int) -> VideoNet:
    """Build the network of `card` without a head from 2D weights, and print what they were used for.

    Args:
        source: a network's name, or a file.
        card: describes the network.
        seed: of the parameters that the 2D weights do not have.

    Raises:
        UserError: the weights are not available, or belong to another network.
    """
    state_2d = load_2d_state(source if source in SOURCES else str(input_path(Path(source))))
    torch.manual_seed(seed)
    net = build_model(card.model_kind, num_classes=0, **card.model_arguments)
    report = inflate(net, state_2d)
    left = f"; these stay as initialised: {', '.join(report.left_at_init)}" if report.left_at_init else ""
    print(f"{report.num_copied} parameters are inflated from {source}{left}", flush=True)
    return net
