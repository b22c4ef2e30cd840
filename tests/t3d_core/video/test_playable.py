import av
import numpy as np
import pytest

from t3d_core.errors import UserError
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.playable import write_playable


def grey_frames(num_frames, *, height=48, width=64):
    return (np.full((height, width, 3), 40 + 5 * place, np.uint8) for place in range(num_frames))


def atoms(data):
    """The names of the parts of an mp4 file, in their order."""
    place, names = 0, []
    while place < len(data):
        names.append(data[place + 4 : place + 8].decode())
        place += int.from_bytes(data[place : place + 4], "big")
    return names


def test_frames_come_back_in_number_order_and_brightness(tmp_path):
    write_playable(grey_frames(30), path=tmp_path / "video.mp4", fps=12.5)
    info = probe(tmp_path / "video.mp4")
    assert (info.num_frames, info.fps, info.height, info.width) == (30, 12.5, 48, 64)
    frames_THWC = decode_frames(tmp_path / "video.mp4", range(30))
    np.testing.assert_allclose(frames_THWC.mean(axis=(1, 2, 3)), 40 + 5 * np.arange(30), atol=3)


def test_a_browser_can_show_it_while_it_downloads(tmp_path):
    write_playable(grey_frames(3), path=tmp_path / "video.mp4", fps=25)
    names = atoms((tmp_path / "video.mp4").read_bytes())
    assert names.index("moov") < names.index("mdat")
    with av.open(str(tmp_path / "video.mp4")) as container:
        [stream] = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize(("height", "width"), [(96, 128), (720, 1280)])
def test_colours_are_noted_as_they_are_stored(tmp_path, height, width):
    frame_HWC = np.full((height, width, 3), (200, 40, 60), np.uint8)
    write_playable([frame_HWC], path=tmp_path / "video.mp4", fps=25)
    [decoded_HWC] = decode_frames(tmp_path / "video.mp4", [0])
    np.testing.assert_allclose(decoded_HWC.mean(axis=(0, 1)), (200, 40, 60), atol=4)


def test_an_odd_size_loses_its_last_row_and_column(tmp_path):
    write_playable(grey_frames(2, height=49, width=65), path=tmp_path / "video.mp4", fps=25)
    info = probe(tmp_path / "video.mp4")
    assert (info.height, info.width) == (48, 64)


def test_no_frame_two_sizes_and_a_single_pixel_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least one frame"):
        write_playable([], path=tmp_path / "video.mp4", fps=25)
    with pytest.raises(UserError, match="must all have the shape"):
        write_playable([*grey_frames(1), *grey_frames(1, height=50)], path=tmp_path / "video.mp4", fps=25)
    with pytest.raises(UserError, match="at least 2x2 pixels, got 8x1"):
        write_playable(grey_frames(1, height=1, width=8), path=tmp_path / "video.mp4", fps=25)
