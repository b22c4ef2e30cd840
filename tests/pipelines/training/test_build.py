import re

import pytest
import torch

from pipelines.train.job import run_train
from pipelines.training.config import (
    TrainComputeConfig,
)
from pipelines.transfer.job import run_transfer
from t3d_core.models import VideoNet
from t3d_core.models.recompute import RecomputableLayer
from tests.pipelines.training.small_runs import train_config, transfer_config


class Seen:
    """What every training step and every validation found of the network's switches."""

    def __init__(self, monkeypatch):
        self.found = set()
        forward_features = VideoNet.forward_features

        def spy(net, clip_BCTHW):
            layers = [module for module in net.modules() if isinstance(module, RecomputableLayer)]
            conv = next(module for module in net.modules() if isinstance(module, torch.nn.Conv3d))
            self.found.add(
                (
                    net.training,
                    layers[-1].is_recomputed,
                    conv.weight.is_contiguous(memory_format=torch.channels_last_3d),
                    net.is_debugging,
                    torch.is_autocast_enabled("cpu"),
                )
            )
            return forward_features(net, clip_BCTHW)

        monkeypatch.setattr(VideoNet, "forward_features", spy)


@pytest.mark.parametrize("stage", ["train", "transfer"])
def test_the_switches_of_a_run_reach_its_network(stage, settings, synthetic_shards, monkeypatch, capsys):
    seen = Seen(monkeypatch)
    run, config = {"train": (run_train, train_config), "transfer": (run_transfer, transfer_config)}[stage]
    compute = TrainComputeConfig(precision="bf16", recompute=True, debug=True)
    run(config(settings, synthetic_shards, name="mine", epochs=1, compute=compute))
    assert {(True, True, False, True, True), (False, True, False, True, True)} <= seen.found  # bf16 on a CPU
    assert re.search(r"bf16 compared with fp32: .*, gradients [\d.]+%; took [\d.]+ s\n", capsys.readouterr().out)
    run(config(settings, synthetic_shards, name="usual", epochs=1))
    assert {(True, False, True, False, False), (False, False, True, False, False)} <= seen.found
    seen.found.clear()
    run(config(settings, synthetic_shards, name="other", epochs=1, compute=TrainComputeConfig(channels_last=False)))
    assert {(True, False, False, False, False), (False, False, False, False, False)} <= seen.found
    assert not any(recomputed or last for _, recomputed, last, *_ in seen.found)
