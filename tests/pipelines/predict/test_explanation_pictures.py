import numpy as np
import pytest
from PIL import Image

from pipelines.predict.explanation_pictures import draw_explanation_sheet, overlay_frames

NAN = float("nan")
SHARES = [[(1, 0.2), (3, 0.5), (6, 0.3)], [(1, 0.01), (3, 0.99), (4, 0.0)], [(1, NAN), (3, NAN), (4, NAN)]]


def frames_and_map(brightness, num_frames=16, height=48, width=64):
    frames = np.full((num_frames, height, width, 3), brightness, np.uint8)
    heat = np.zeros((num_frames, height, width), np.float32)
    heat[num_frames // 2, : height // 2] = 1
    return frames, heat


@pytest.mark.parametrize("brightness", [0, 128, 255])
def test_the_maximum_is_red_on_dark_and_on_bright_frames_and_the_rest_stays_grey(brightness):
    frames, heat = frames_and_map(brightness)
    overlaid = overlay_frames(frames, heat)
    assert overlaid.shape == frames.shape
    assert overlaid.dtype == np.uint8
    red, green, blue = overlaid[8, 0, 0].astype(int)
    assert red > 1.5 * max(green, blue)
    cold = overlaid[heat == 0]
    assert (cold == cold[0, 0]).all()
    assert 20 < cold[0, 0] < 200
    assert (frames == brightness).all()


def test_a_weak_part_of_the_map_is_seen():
    frames, heat = frames_and_map(128)
    weak = overlay_frames(frames, 0.05 * heat).astype(int)
    assert np.ptp(weak[8, 0, 0]) > 10
    assert np.ptp(weak[0, 0, 0]) == 0


@pytest.mark.parametrize(("height", "width"), [(48, 64), (160, 90), (20, 400), (2, 2)])
@pytest.mark.parametrize("num_frames", [1, 5, 16])
def test_a_sheet_is_a_picture_of_any_clip(tmp_path, height, width, num_frames):
    path = tmp_path / "sheet.png"
    frames, heat = frames_and_map(90, num_frames, height, width)
    draw_explanation_sheet(frames, heat, SHARES, title="a $title$ with \u8dd1\u6b65 and\na line break" * 3, path=path)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert 400 < sheet.width < 2600
        assert 200 < sheet.height < 1000
    assert list(tmp_path.iterdir()) == [path]


def test_the_frames_stand_above_the_same_frames_under_the_map(tmp_path):
    frames, heat = frames_and_map(90)
    draw_explanation_sheet(frames, np.ones_like(heat), [], title="", path=tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    plain = (pixels == 90).all(axis=2)
    hot = pixels[..., 0] > 80 + pixels[..., 2]
    assert plain.sum() > 10_000
    assert abs(int(plain.sum()) - int(hot.sum())) < 0.02 * plain.sum()
    assert np.flatnonzero(plain.any(axis=1)).max() < np.flatnonzero(hot.any(axis=1)).min()


def test_bars_are_as_long_as_the_shares(tmp_path):
    frames, heat = frames_and_map(90)
    draw_explanation_sheet(frames, heat, [[(1, 0.25), (3, 0.75)]], title="", path=tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    shallow, deep = (
        (pixels == colour).all(axis=2).sum(axis=1).max() for colour in ((0x9E, 0xCA, 0xE1), (0x42, 0x92, 0xC6))
    )
    assert deep / (shallow + deep) == pytest.approx(0.75, abs=0.02)


def test_without_temporal_layers_there_are_no_bars(tmp_path):
    frames, heat = frames_and_map(90)
    heights = []
    for shares in ([], SHARES):
        draw_explanation_sheet(frames, heat, shares, title="x", path=tmp_path / "sheet.png")
        heights.append(Image.open(tmp_path / "sheet.png").height)
    assert heights[1] - heights[0] > 100


def test_a_map_of_another_size_is_our_mistake():
    frames, heat = frames_and_map(90)
    with pytest.raises(AssertionError, match="must fit"):
        overlay_frames(frames, heat[:, :-1])
