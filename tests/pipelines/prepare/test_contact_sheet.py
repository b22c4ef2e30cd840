import numpy as np
import pyarrow as pa
import pytest
from matplotlib import font_manager
from PIL import Image

from pipelines.prepare.contact_sheet import write_contact_sheet
from pipelines.runtime import fonts
from pipelines.shards.folder import ShardFolder
from pipelines.shards.schemas import REPORT_SCHEMA
from pipelines.shards.writing import open_shard, write_table
from t3d_core.video.storage import encode_video
from tests.pipelines.runtime.made_font import write_font

FRAME_PITCH = 128 + 2  # pixels: a 48x36 video becomes 128x96, and a gap
FIRST_FRAME_CENTRE = np.array([16 + 34 + 48, 16 + 64])  # (y, x): margin, title
LABEL_CENTRE = 16 + 34 + 96 + 13, 16 + 6


@pytest.fixture
def encoded(tmp_path):
    """Gives an mp4 of grey frames, one for each brightness."""

    def encode(brightness, *, height=36, width=48):
        frames = (np.full((height, width, 3), value, np.uint8) for value in brightness)
        encode_video(frames, path=tmp_path / "video.mp4", fps=10.0)
        return (tmp_path / "video.mp4").read_bytes()

    return encode


@pytest.fixture
def folder(tmp_path):
    """Gives a prepared folder with one shard of the given rows."""

    def make(rows, *, dataset="greys"):
        made = ShardFolder(tmp_path / "prepared")
        with open_shard(made.shard_file(0)) as shard:
            for row in rows:
                shard.append(row)
        reports = [{"encoding": row["encoding"], "num_segments": 1} for row in rows]
        write_table(pa.Table.from_pylist(reports, schema=REPORT_SCHEMA), made.videos_file)
        labels = sorted({row["label"] for row in rows} - {None})
        made.write_description({"dataset": dataset, "class_names": labels, "num_shards": 1})
        return made

    return make


def segment(data, *, num_frames, label=None, name="video", frame_offset=0, height=36, width=48):
    row = {"segment_id": f"{name}#0", "label": label, "splits": ["train", "test"], "fps": 10.0, "encoding": "h264"}
    row |= {"frame_offset": frame_offset, "num_frames": num_frames, "height": height, "width": width}
    return row | {"frames": data}


def draw(folder, tmp_path, **options):
    write_contact_sheet(folder, tmp_path / "sheet.png", **options)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
        return np.asarray(image)[..., 0].astype(int)


def test_six_frames_lie_evenly_from_the_first_of_the_segment_to_its_last(encoded, folder, tmp_path):
    # 8 stored frames stand before the segment: a stream copy begins at a key frame
    row = segment(encoded(range(0, 240, 8)), num_frames=21, frame_offset=8)
    sheet = draw(folder([row]), tmp_path)
    y, x = FIRST_FRAME_CENTRE
    shown = sheet[y, x : x + 6 * FRAME_PITCH : FRAME_PITCH]
    np.testing.assert_allclose(shown, 8 * np.array([8, 12, 16, 20, 24, 28]), atol=4)


def test_every_class_is_shown_before_one_is_shown_twice(encoded, folder, tmp_path):
    rows = [segment(encoded([40] * 3), num_frames=3, label="many", name=str(place)) for place in range(30)]
    rows += [segment(encoded([value] * 3), num_frames=3, label=str(value)) for value in (120, 200)]
    for seed in range(3):
        sheet = draw(folder(rows), tmp_path, num_segments=3, seed=seed)
        y, x = FIRST_FRAME_CENTRE
        np.testing.assert_allclose(sheet[y :: 96 + 30 + 10, x][:3], [120, 200, 40], atol=4)  # sorted by label


def test_the_seed_alone_decides_which_rows_are_shown(encoded, folder, tmp_path):
    made = folder([segment(encoded([8 * place] * 2), num_frames=2, name=str(place)) for place in range(30)])
    first, again, other = (draw(made, tmp_path, num_segments=4, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_a_set_with_fewer_rows_than_wanted_shows_them_all_and_one_with_none_says_so(encoded, folder, tmp_path):
    three = draw(folder([segment(encoded([99]), num_frames=1, name=str(place)) for place in range(3)]), tmp_path)
    y, x = FIRST_FRAME_CENTRE
    assert (abs(three[y :: 96 + 30 + 10, x] - 99) <= 4).all()
    assert len(three[y :: 96 + 30 + 10]) == 3
    none = draw(folder([]), tmp_path)
    assert len(none) < y
    assert (none < 100).any()  # the title


@pytest.mark.heavy
@pytest.mark.parametrize("text", ["\u8dd1\u6b65 \u0628\u0647 caf\u00e9 \U0001f3c3 " * 9, "a\nb\tc\0d\u202e", "W" * 300])
def test_texts_of_any_script_and_length_stay_within_their_strip(encoded, folder, tmp_path, text):
    rows = [segment(encoded([0]), num_frames=1, label=text + str(place), name=text) for place in range(8)]
    sheet = draw(folder(rows, dataset=text), tmp_path)
    paper = sheet[0, 0]
    assert (sheet[:, -14:] == paper).all()
    centre = sheet.shape[1] // 2
    assert (sheet[50:, centre - 6 : centre + 6] == paper).all()


def test_accents_are_drawn_however_they_are_spelled(encoded, folder, tmp_path):
    composed, decomposed, bare = (
        draw(folder([segment(encoded([0]), num_frames=1, label=label)]), tmp_path)
        for label in ("caf\u00e9", "cafe\u0301", "cafe")
    )
    assert (composed == decomposed).all()
    assert (composed != bare).any()


def test_an_installed_font_draws_the_letters_that_the_usual_one_lacks(encoded, folder, tmp_path, monkeypatch, caplog):
    label = "\u8dd1\u6b65"
    made = folder([segment(encoded([0]), num_frames=1, label=label)], dataset=label)
    monkeypatch.setattr(fonts, "_FONT_OF", {})
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    codes = draw(made, tmp_path)
    assert "No font here has 2 letters of CJK" in caplog.text
    monkeypatch.setattr(fonts, "_FONT_OF", {})
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [write_font(tmp_path / "made.ttf", label)])
    y, x = LABEL_CENTRE
    assert draw(made, tmp_path)[y, x] < 50  # a filled square
    assert codes[y, x] != draw(made, tmp_path)[y, x]


def test_a_segment_that_cannot_be_decoded_has_the_reason_in_its_place(encoded, folder, tmp_path):
    rows = [segment(encoded([value] * 2), num_frames=2, label=name) for name, value in (("a", 40), ("b", 200))]
    healthy = draw(folder(rows), tmp_path)
    rows[1]["frames"] = rows[1]["frames"][:200]
    broken = draw(folder(rows), tmp_path)
    second = 16 + 34 + 96 + 30 + 10  # where its strip begins
    assert (healthy[:second] == broken[:second]).all()
    notice = broken[second : second + 96, 16:600]
    assert notice.max() > 200
    assert notice.min() < 50  # the text
    details = np.s_[second + 96 :, 16:60]
    assert (healthy[details] == broken[details]).all()  # its label


@pytest.mark.parametrize(("height", "width"), [(128, 36), (36, 400)])
def test_tall_and_wide_videos_keep_their_shape_and_fit(encoded, folder, tmp_path, height, width):
    row = segment(encoded([0], height=height, width=width), num_frames=1, height=height, width=width)
    sheet = draw(folder([row]), tmp_path)
    first_frame = sheet[50 : 50 + 96, 16 : 16 + 171] < 30
    shown_height, shown_width = first_frame[:, 3].sum(), np.argmin(first_frame[3]) or 171
    assert shown_width / shown_height == pytest.approx(width / height, rel=0.05)
    assert shown_height == 96 or shown_width == 171


def test_the_sheet_of_real_videos_is_no_blank(weizmann_shards):
    with Image.open(ShardFolder(weizmann_shards).contact_sheet_file) as image:
        assert image.width > 1200
        assert np.asarray(image).std() > 30
