"""2D weights by name or file, and what is said where there are none."""

from urllib.error import URLError

import pytest
import torch

from t3d_core.transfer.inflation import load_2d_state


def test_a_file_is_taken_as_it_is(download_of_googlenet):
    net_2d, cached = download_of_googlenet
    state = load_2d_state(str(cached))
    assert all(torch.equal(state[name], tensor) for name, tensor in net_2d.state_dict().items())


def test_weights_that_cannot_be_downloaded_give_an_error_with_the_url_and_the_path(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(ValueError, match="no route to host") as caught:
        load_2d_state("resnet18")
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints") in str(caught.value)


def test_a_source_that_is_neither_a_name_nor_a_file_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"'resnet19' are neither a file nor one of densenet121, .*googlenet"):
        load_2d_state("resnet19")


@pytest.mark.parametrize("content", [b"", b"not a weights file"])
def test_a_damaged_file_is_named(content, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"2D weights .*weights\.pth cannot be read"):
        load_2d_state(str(path))


def test_a_file_of_something_else_than_a_state_is_named(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth hold a list"):
        load_2d_state(str(tmp_path / "list.pth"))
