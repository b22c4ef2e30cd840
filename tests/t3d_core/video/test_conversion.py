import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.video.conversion import _span
from t3d_core.video.cropping import Crop, crop_frames, five_crops
from t3d_core.video.decoding import decode_frames

SMALL_GROUPS = {"x264-params": "keyint=12:scenecut=0"}


def shift_between(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """By how many pixels (down, right) the second picture fits the first one best."""
    error = {}
    for down in (-2, -1, 0, 1, 2):
        for right in (-2, -1, 0, 1, 2):
            moved = np.roll(second, (down, right), (0, 1))[3:-3, 3:-3].astype(int)
            error[down, right] = np.abs(moved - first[3:-3, 3:-3]).mean()
    return min(error, key=error.__getitem__)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("rotation", [None, 90, 180])
def test_a_crop_of_frames_at_their_own_size_is_cut_to_the_pixel(place, rotation, encode):
    data = encode(rotation=rotation, num_frames=5)
    whole_THWC = decode_frames(data, [3, 1])
    crop = five_crops(*whole_THWC.shape[1:3], crop_size=31)[place]
    assert np.array_equal(decode_frames(data, [3, 1], crop=crop), crop_frames(whole_THWC, crop))


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("size", [(256, 342), (96, 128), (61, 83)])
def test_a_crop_of_scaled_frames_is_where_it_would_be_and_looks_the_same(place, size, real_clip):
    path = real_clip("single_clips/gop235_340x256.mp4")
    crop = five_crops(*size, crop_size=min(size) * 7 // 8)[place]
    [expected_HWC] = crop_frames(decode_frames(path, [40], size=size), crop)
    [found_HWC] = decode_frames(path, [40], size=size, crop=crop)
    assert found_HWC.shape == (crop.size, crop.size, 3)
    assert shift_between(expected_HWC, found_HWC) == (0, 0)
    assert np.abs(found_HWC.astype(int) - expected_HWC).mean() < 5


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "rotation"),
    [("rawvideo", "bgr24", None), ("mjpeg", "yuvj420p", None), ("mpeg4", "yuv420p", 90)],
)
def test_every_format_and_rotation_gives_the_crop_of_its_scaled_frames(codec, pix_fmt, rotation, encode):
    container = "mp4" if rotation else "avi"
    data = encode(container, codec, pix_fmt=pix_fmt, rotation=rotation, num_frames=3, size=(97, 131))
    size = (174, 128) if rotation else (128, 174)
    crop = Crop(top=9, left=5, size=100)  # holds two edges of the green block
    [expected] = crop_frames(decode_frames(data, [2], size=size), crop)
    [found] = decode_frames(data, [2], size=size, crop=crop)
    assert shift_between(expected, found) == (0, 0)
    assert np.abs(found.astype(int) - expected).mean() < 2


def test_frames_that_change_their_size_are_cropped_alike(encode):
    data = encode("mpeg", "mpeg2video", num_frames=20) + encode("mpeg", "mpeg2video", num_frames=20, size=(96, 112))
    crop = Crop(4, 2, 56)
    expected = crop_frames(decode_frames(data, [3, 30], size=(64, 90)), crop)
    found = decode_frames(data, [3, 30], size=(64, 90), crop=crop)
    assert [shift_between(e, f) for e, f in zip(expected, found, strict=True)] == [(0, 0), (0, 0)]


def test_a_crop_that_does_not_fit_is_the_callers_error(encode):
    with pytest.raises(ValueError, match="crop must lie inside the 46x64 frames"):
        decode_frames(encode(num_frames=3), [0], crop=Crop(0, 20, 45))


@given(source=st.integers(2, 3000), scaled=st.integers(2, 600), start=st.floats(0, 1), length=st.floats(0, 1))
def test_a_region_lies_in_its_source_and_holds_the_crop(source, scaled, start, length):
    size = 1 + int(length * (scaled - 1))
    first = int(start * (scaled - size))
    span = _span(first, size, source=source, scaled=scaled)
    assert 0 <= span.first < span.stop <= source
    assert span.first % 2 == 0
    assert 0 <= span.offset <= span.offset + size <= span.scaled
    # The middle of the crop stays where it is, to a pixel.
    middle = (span.offset + size / 2) * (span.stop - span.first) / span.scaled + span.first
    assert abs(middle * scaled / source - (first + size / 2)) <= 1.5
