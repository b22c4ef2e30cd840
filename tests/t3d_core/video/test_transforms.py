import pytest
import torch
from torchvision.transforms import v2

from t3d_core.video.transforms import normalize_clip


def test_normalising_equals_torchvision():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    clip_BTHWC = torch.randint(0, 256, (2, 3, 5, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames_BTCHW = v2.functional.to_dtype(clip_BTHWC.permute(0, 1, 4, 2, 3), torch.float32, scale=True)
    expected_BCTHW = v2.functional.normalize(frames_BTCHW, list(mean), list(std)).transpose(1, 2)
    clip_BCTHW = normalize_clip(clip_BTHWC, mean=mean, std=std)
    assert clip_BCTHW.shape == (2, 3, 3, 5, 6)
    assert clip_BCTHW.is_contiguous()
    torch.testing.assert_close(clip_BCTHW, expected_BCTHW, rtol=0, atol=1e-6)


def test_normalising_refuses_what_is_no_uint8_clip():
    with pytest.raises(ValueError, match=r"must be uint8 with 5 axes, got torch\.float32"):
        normalize_clip(torch.zeros(1, 2, 3, 4, 3), mean=(0, 0, 0), std=(1, 1, 1))
