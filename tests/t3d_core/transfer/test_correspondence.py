import pytest
import torch
from torch import nn

from t3d_core.models import build_model, count_parameters
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.pairing import NO_PARTNER


class ClipAsFeature(nn.Module):
    """A student whose feature is its input, so that a value can be followed to the pair it ends in."""

    def forward_features(self, clip_BCTHW):
        return clip_BCTHW.flatten(1)


@pytest.fixture
def transparent_net():
    """A net that gives (student feature, teacher feature) of each pair in place of logits."""
    net = CorrespondenceNet(ClipAsFeature(), student_dim=1, teacher_dim=1, projection_dim=1)
    net.head = nn.Identity()
    return net


def test_positives_take_their_own_frames_and_negatives_those_of_the_partner(transparent_net):
    clip_BCTHW = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1, 1)
    teacher_BD = torch.tensor([[10.0], [20.0], [30.0]])
    pairs, is_match_P = transparent_net(clip_BCTHW, teacher_BD, torch.tensor([2, 0, 1]))
    assert pairs.tolist() == [[1, 10], [2, 20], [3, 30], [1, 30], [2, 10], [3, 20]]
    assert is_match_P.tolist() == [1, 1, 1, 0, 0, 0]
    assert is_match_P.dtype == torch.int64


def test_a_clip_without_partner_makes_a_positive_pair_only(transparent_net):
    clip_BCTHW = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1, 1)
    teacher_BD = torch.tensor([[10.0], [20.0], [30.0]])
    pairs, is_match_P = transparent_net(clip_BCTHW, teacher_BD, torch.tensor([2, NO_PARTNER, 0]))
    assert pairs.tolist() == [[1, 10], [2, 20], [3, 30], [1, 30], [3, 10]]
    assert is_match_P.tolist() == [1, 1, 1, 0, 0]


def test_a_batch_without_any_partner_gives_positives_only(transparent_net):
    pairs, is_match_P = transparent_net(torch.ones(2, 1, 1, 1, 1), torch.ones(2, 1), torch.full((2,), NO_PARTNER))
    assert pairs.shape == (2, 2)
    assert is_match_P.tolist() == [1, 1]


def test_the_head_for_two_1024_d_features_has_the_papers_parameters():
    net = CorrespondenceNet(ClipAsFeature(), student_dim=1024, teacher_dim=1024)
    assert count_parameters(net) == 1_115_010
    assert [layer.out_features for layer in net.head if isinstance(layer, nn.Linear)] == [512, 128, 2]


def test_a_student_of_another_width_is_projected_and_the_head_takes_the_teachers_width():
    net = CorrespondenceNet(ClipAsFeature(), student_dim=30, teacher_dim=512)
    assert (net.projection.in_features, net.projection.out_features) == (30, 1024)
    assert net.head[0].in_features == 1024 + 512


def test_one_student_forward_serves_both_kinds_of_pairs():
    student = build_model(
        "t3d",
        num_classes=0,
        ttl_preset="thirds",
        growth_rate=4,
        block_config=(2, 2, 2, 2),
        num_init_features=24,
        bn_size=2,
    )
    net = CorrespondenceNet(student, student_dim=student.feature_dim, teacher_dim=8)
    num_forwards_before = student.features.norm0.num_batches_tracked.item()
    logits_P2, _ = net(torch.randn(2, 3, 16, 32, 32), torch.randn(2, 8), torch.tensor([1, 0]))
    assert logits_P2.shape == (4, 2)
    assert student.features.norm0.num_batches_tracked.item() == num_forwards_before + 1
