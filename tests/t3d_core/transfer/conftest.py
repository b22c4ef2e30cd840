import pytest
import torch
import torchvision

from tests.t3d_core.transfer.random_weights import with_random_weights


@pytest.fixture
def download_of_googlenet(monkeypatch, tmp_path):
    """A GoogLeNet in torchvision's cache, where no network is needed; the heads that torchvision serves are with it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "googlenet-1378be20.pth"
    cached.parent.mkdir(parents=True)
    net_2d = with_random_weights(torchvision.models.googlenet(init_weights=False, transform_input=True))
    torch.save(net_2d.state_dict(), cached)
    return net_2d, cached
