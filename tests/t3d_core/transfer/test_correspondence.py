import pytest
import torch
from torch import nn

from t3d_core.models import build_model, count_parameters
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.pairing import rolled_pairs


class ClipAsFeature(nn.Module):
    def forward_features(self, clip_BCTHW):
        return clip_BCTHW.flatten(1)


def test_the_head_is_three_layers_on_the_two_features_side_by_side():
    torch.manual_seed(0)
    head = CorrespondenceNet(ClipAsFeature(), student_dim=6, teacher_dim=4, projection_dim=6).head
    student_BD, teacher_BD = torch.randn(3, 6), torch.randn(3, 4)
    clip_P, frames_P = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 2, 1, 0])
    plain = nn.Sequential(head.first, nn.ReLU(), head.second, nn.ReLU(), head.last)
    side_by_side = torch.cat([student_BD[clip_P], teacher_BD[frames_P]], dim=1)
    torch.testing.assert_close(head(student_BD, teacher_BD, clip_P, frames_P), plain(side_by_side))


def test_the_head_for_two_1024_d_features_has_the_papers_parameters():
    net = CorrespondenceNet(ClipAsFeature(), student_dim=1024, teacher_dim=1024)
    assert count_parameters(net) == 1_115_010
    assert [layer.out_features for layer in net.head.children()] == [512, 128, 2]


def test_a_student_of_another_width_is_projected_and_the_head_takes_the_teachers_width():
    net = CorrespondenceNet(ClipAsFeature(), student_dim=30, teacher_dim=512)
    assert (net.projection.in_features, net.projection.out_features) == (30, 1024)
    assert net.head.first.in_features == 1024 + 512


@pytest.mark.parametrize(
    ("projection", "student_dim", "widths"),
    [
        ("auto", 1024, []),
        ("auto", 30, [(30, 1024)]),
        ("always", 1024, [(1024, 1024)]),
        ("always", 30, [(30, 1024)]),
        ("mlp", 1024, [(1024, 1024), (1024, 1024)]),
        ("mlp", 30, [(30, 1024), (1024, 1024)]),
    ],
)
def test_the_student_is_projected_as_asked(projection, student_dim, widths):
    net = CorrespondenceNet(ClipAsFeature(), student_dim=student_dim, teacher_dim=8, projection=projection)
    layers = [module for module in net.projection.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == widths
    pairs = rolled_pairs(torch.arange(2))
    assert net(torch.randn(2, student_dim, 1, 1, 1), torch.randn(2, 8), pairs).logits_P2.shape == (4, 2)


@pytest.mark.parametrize("kind", ["t3d", "densenet3d", "resnet3d_18"])
def test_one_forward_pass_of_any_student_serves_both_kinds_of_pairs(kind):
    small = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 24, "bn_size": 2}
    student = build_model(kind, num_classes=0, **({} if kind.startswith("resnet") else small))
    net = CorrespondenceNet(student, student_dim=student.feature_dim, teacher_dim=8)
    norm = next(module for module in student.modules() if isinstance(module, nn.BatchNorm3d))
    output = net(torch.randn(2, 3, 16, 32, 32), torch.randn(2, 8), rolled_pairs(torch.tensor([1, 0])))
    assert output.logits_P2.shape == (4, 2)
    assert output.guess_Bd is None
    assert norm.num_batches_tracked.item() == 1


def test_normed_features_have_the_same_variance_in_every_dimension_whatever_the_networks_give():
    torch.manual_seed(0)
    net = CorrespondenceNet(ClipAsFeature(), student_dim=4, teacher_dim=3, projection_dim=4, norm_features=True).train()
    seen = []
    net.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[:2]))
    clip_BCTHW = torch.randn(64, 4, 1, 1, 1) * torch.tensor([100.0, 1, 1, 0.1]).reshape(1, 4, 1, 1, 1) + 5
    net(clip_BCTHW, 7 + 50 * torch.randn(64, 3), rolled_pairs(torch.arange(64)))
    for feature_BD in seen[0]:
        torch.testing.assert_close(feature_BD.mean(dim=0), torch.zeros(feature_BD.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            feature_BD.var(dim=0, correction=0), torch.ones(feature_BD.shape[1]), atol=2e-3, rtol=0
        )
    # What is normed has no weights to learn, and what validates uses running statistics: pairs do not see each other.
    assert count_parameters(net) == count_parameters(net.head)
    net.eval()
    one, two = (net(clip_BCTHW[:n], torch.ones(n, 3), rolled_pairs(torch.arange(n))).logits_P2[0] for n in (2, 64))
    torch.testing.assert_close(one, two)


def test_a_projector_guesses_keys_with_or_without_a_pair_head():
    clip_BCTHW, teacher_BD, pairs = torch.randn(4, 6, 1, 1, 1), torch.randn(4, 8), rolled_pairs(torch.arange(4))
    for has_pairs in (True, False):
        net = CorrespondenceNet(ClipAsFeature(), student_dim=6, teacher_dim=8, has_pairs=has_pairs, key_dim=5)
        output = net(clip_BCTHW, teacher_BD, pairs if has_pairs else None)
        assert output.guess_Bd.shape == (4, 5)
        assert (output.logits_P2 is not None) == has_pairs
        assert hasattr(net, "head") == has_pairs
