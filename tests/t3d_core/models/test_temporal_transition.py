"""The temporal transition layer against convolutions written out by hand."""

from typing import get_args

import pytest
import torch
from torch import nn

from t3d_core.model_names import TransitionForm
from t3d_core.models import TemporalTransitionLayer, branch_channels_of_preset
from t3d_core.models.temporal_transition import TemporalBranch

FORMS = get_args(TransitionForm)


def convolve_by_hand(x_BCTHW, weight):
    """Sum one 2D convolution a temporal tap; frames beyond the clip are zero, (d - 1) // 2 of them before it."""
    depth, size = weight.shape[2], weight.shape[3]
    num_frames = x_BCTHW.shape[2]
    out = []
    for t in range(num_frames):
        taps = [(k, t - (depth - 1) // 2 + k) for k in range(depth)]
        out.append(
            sum(
                nn.functional.conv2d(x_BCTHW[:, :, s], weight[:, :, k], padding=size // 2)
                for k, s in taps
                if 0 <= s < num_frames
            )
        )
    return torch.stack(out, dim=2)


def pool_by_hand(x_BCTHW):
    return sum(x_BCTHW[:, :, t::2, h::2, w::2] for t in (0, 1) for h in (0, 1) for w in (0, 1)) / 8


def norm_relu_by_hand(norm, x_BCTHW):
    mean = x_BCTHW.mean(dim=(0, 2, 3, 4), keepdim=True)
    variance = x_BCTHW.var(dim=(0, 2, 3, 4), unbiased=False, keepdim=True)
    scale, shift = (p.view(1, -1, 1, 1, 1) for p in (norm.weight, norm.bias))
    return ((x_BCTHW - mean) / (variance + norm.eps).sqrt() * scale + shift).clamp(min=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mix_branches", [False, True])
def test_a_ttl_equals_its_branches_written_out_by_hand(mix_branches, form):
    torch.manual_seed(0)
    ttl = TemporalTransitionLayer(
        6, branch_channels=(5, 2, 3, 4), temporal_depths=(1, 3, 4, 6), mix_branches=mix_branches, form=form
    ).double()
    for module in ttl.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    x = torch.randn(2, 6, 8, 6, 4, dtype=torch.float64)
    expected = torch.cat([convolve_by_hand(norm_relu_by_hand(b.norm, x), b.conv.weight) for b in ttl.branches], dim=1)
    if mix_branches:
        expected = convolve_by_hand(norm_relu_by_hand(ttl.mix.norm, expected), ttl.mix.conv.weight)
    expected = pool_by_hand(expected)
    assert ttl.out_channels == expected.shape[1] == 14
    torch.testing.assert_close(ttl(x), expected)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("depth", [2, 4, 6])
def test_an_even_depth_pads_at_the_end_as_torchs_same_padding_does(depth):
    branch = TemporalBranch(3, 4, temporal_depth=depth)
    same = nn.Conv3d(3, 4, kernel_size=(depth, 3, 3), padding="same", bias=False)
    same.load_state_dict(branch.conv.state_dict())
    x = torch.randn(2, 3, 7, 5, 5)
    out = branch(x)
    assert out.shape == (2, 4, 7, 5, 5)
    torch.testing.assert_close(out, same(branch.norm(x).relu()))


def test_depth_1_is_pointwise_and_deeper_branches_see_3_x_3_pixels():
    ttl = TemporalTransitionLayer(4, branch_channels=(2, 2, 2), temporal_depths=(1, 3, 6))
    assert [b.conv.kernel_size for b in ttl.branches] == [(1, 1, 1), (3, 3, 3), (6, 3, 3)]


def test_the_input_is_left_as_it_was():
    x = torch.randn(1, 4, 4, 4, 4)
    kept = x.clone()
    TemporalTransitionLayer(4, branch_channels=(2, 2), temporal_depths=(1, 4))(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("preset", "out_channels", "depths", "widths"),
    [
        ("growth", 128, (1, 3, 6), (64, 32, 32)),
        ("growth", 512, (1, 3, 4), (448, 32, 32)),
        ("growth", 128, (6, 3, 1), (32, 32, 64)),
        ("growth", 128, (4, 3), (32, 96)),
        ("growth", 128, (1,), (128,)),
        ("thirds", 128, (1, 3, 6), (44, 42, 42)),
        ("thirds", 128, (4, 3, 6), (42, 44, 42)),
        ("official128", 256, (1, 3, 4), (128, 128, 128)),
    ],
)
def test_presets_share_the_channels_among_the_branches(preset, out_channels, depths, widths):
    found = branch_channels_of_preset(
        preset, out_channels=out_channels, temporal_depths=depths, growth_rate=32, place="block 1"
    )
    assert found == widths


@pytest.mark.parametrize(("preset", "out_channels"), [("growth", 64), ("thirds", 2)])
def test_a_width_below_1_names_the_place(preset, out_channels):
    with pytest.raises(ValueError, match="the TTL after block 2"):
        branch_channels_of_preset(
            preset, out_channels=out_channels, temporal_depths=(1, 3, 6), growth_rate=32, place="block 2"
        )


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'halves' is unknown; choose one of growth, thirds, official128"):
        branch_channels_of_preset("halves", out_channels=32, temporal_depths=(1, 3), growth_rate=8, place="block 1")


@pytest.mark.parametrize(
    ("channels", "depths", "message"),
    [
        ((2, 2), (1, 3, 4), "one entry a branch"),
        ((), (), "branch_channels \\(\\)"),
        ((2, 0), (1, 3), "branch_channels \\(2, 0\\)"),
        ((2, 2), (1, 0), "temporal_depths \\(1, 0\\)"),
    ],
)
def test_impossible_branches_are_refused(channels, depths, message):
    with pytest.raises(ValueError, match=message):
        TemporalTransitionLayer(4, branch_channels=channels, temporal_depths=depths)


def test_an_unknown_form_is_refused_where_the_layer_is_built():
    with pytest.raises(ValueError, match="transition form 'fast' is unknown"):
        TemporalTransitionLayer(4, branch_channels=(2,), temporal_depths=(1,), form="fast")


def test_a_ttl_without_depths_is_refused():
    with pytest.raises(ValueError, match="temporal_depths \\(\\)"):
        branch_channels_of_preset("growth", out_channels=32, temporal_depths=(), growth_rate=8, place="block 1")
