import pytest

from t3d_core.video.sizes import default_short_side, resized_size


@pytest.mark.parametrize(("crop_size", "short_side"), [(224, 256), (112, 128), (64, 73)])
def test_the_short_side_keeps_the_paper_s_ratio_to_the_crop(crop_size, short_side):
    assert default_short_side(crop_size) == short_side


@pytest.mark.parametrize(
    ("size", "expected"), [((720, 1280), (256, 455)), ((1280, 720), (455, 256)), ((144, 180), (256, 320))]
)
def test_resizing_sets_the_short_side_and_keeps_the_aspect(size, expected):
    assert resized_size(*size, short_side=256) == expected
