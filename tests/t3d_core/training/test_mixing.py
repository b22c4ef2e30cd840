import pytest
import torch

from t3d_core.training.mixing import Mixing

NUM_CLASSES = 5


def batch(num_videos=4, num_segments=1, *, dtype=torch.float32):
    clip = torch.randn(num_videos * num_segments, 3, 4, 12, 10).to(dtype)
    return clip, torch.arange(num_videos) % NUM_CLASSES


def others(clip, num_segments=1):
    """The clips with which each is mixed: the same segment of the video before."""
    return clip.roll(num_segments, dims=0)


def share_of_own(share_BK, label_B):
    return share_BK[torch.arange(len(label_B)), label_B]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("num_segments", [1, 3])
def test_mixup_lays_two_videos_over_each_other_with_the_weight_of_their_labels(num_segments):
    clip, label_B = batch(num_segments=num_segments)
    before = clip.clone()
    mixed, share_BK = Mixing(0.8, 0.0, NUM_CLASSES)(clip, label_B)
    weight = share_of_own(share_BK, label_B)
    assert (weight == weight[0]).all()
    assert 0 < weight[0] < 1
    expected = weight[0] * clip + (1 - weight[0]) * others(clip, num_segments)
    assert torch.allclose(mixed, expected, atol=1e-6)
    assert torch.allclose(share_of_own(share_BK, label_B.roll(1)), 1 - weight)
    assert torch.allclose(share_BK.sum(dim=1), torch.ones(4))
    assert torch.equal(clip, before)


@pytest.mark.parametrize("num_segments", [1, 3])
def test_cutmix_cuts_one_rectangle_out_of_all_frames_of_a_video_and_shares_labels_by_its_area(num_segments):
    clip, label_B = batch(num_segments=num_segments)
    for _ in range(20):
        mixed, share_BK = Mixing(0.0, 1.0, NUM_CLASSES)(clip, label_B)
        is_own = mixed == clip
        assert torch.equal(mixed, torch.where(is_own, clip, others(clip, num_segments)))
        is_own_HW = is_own[0, 0, 0]
        assert torch.equal(is_own, is_own_HW.expand_as(is_own))
        rows, columns = (~is_own_HW).any(dim=1), (~is_own_HW).any(dim=0)
        assert torch.equal(~is_own_HW, rows[:, None] & columns)
        assert share_of_own(share_BK, label_B).tolist() == pytest.approx([is_own_HW.float().mean().item()] * 4)


def test_with_both_a_batch_gets_one_of_the_two_about_equally_often():
    clip, label_B = batch()
    mixing = Mixing(0.8, 1.0, NUM_CLASSES)
    is_cut = []
    for _ in range(100):
        mixed = mixing(clip, label_B).clip_BCTHW
        is_cut.append(bool(((mixed == clip) | (mixed == others(clip))).all()))
    assert 35 < sum(is_cut) < 65


@pytest.mark.parametrize("mixing", [Mixing(0.8, 0.0, NUM_CLASSES), Mixing(0.0, 1.0, NUM_CLASSES)])
def test_bfloat16_and_channels_last_give_what_plain_clips_give(mixing):
    clip, label_B = batch(dtype=torch.bfloat16)
    forms = [clip.float(), clip.float().to(memory_format=torch.channels_last_3d), clip]
    forms.append(clip.to(memory_format=torch.channels_last_3d))
    results = []
    for form in forms:
        torch.manual_seed(1)
        results.append(mixing(form, label_B))
    for form, result in zip(forms, results, strict=True):
        assert result.clip_BCTHW.dtype == form.dtype
        assert type(result.clip_BCTHW) is torch.Tensor
        assert torch.allclose(result.clip_BCTHW.float(), results[0].clip_BCTHW, atol=0.03)
        assert torch.equal(result.share_BK, results[0].share_BK)
    assert torch.equal(results[1].clip_BCTHW, results[0].clip_BCTHW)


def test_a_seed_repeats_the_mixture():
    clip, label_B = batch()
    mixing = Mixing(0.8, 1.0, NUM_CLASSES)
    torch.manual_seed(3)
    first = mixing(clip, label_B)
    assert not torch.equal(mixing(clip, label_B).clip_BCTHW, first.clip_BCTHW)
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(mixing(clip, label_B), first, strict=True))


def test_a_single_video_stays_itself():
    clip, label_B = batch(num_videos=1)
    mixed, share_BK = Mixing(0.8, 1.0, NUM_CLASSES)(clip, label_B)
    assert torch.allclose(mixed, clip, atol=1e-6)
    assert torch.allclose(share_BK, torch.eye(NUM_CLASSES)[label_B])


@pytest.mark.parametrize("alphas", [(0.0, 0.0), (-1.0, 1.0)])
def test_settings_that_mix_nothing_are_refused(alphas):
    with pytest.raises(ValueError, match="one of them more than 0"):
        Mixing(*alphas, num_classes=NUM_CLASSES)
