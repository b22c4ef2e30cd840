"""Which font draws which letters. The machine's fonts are made here, so that every machine has the same."""

import warnings
from io import BytesIO

import numpy as np
import pytest
from matplotlib import font_manager, rc_context, rcParams
from matplotlib.figure import Figure
from PIL import Image

from pipelines.runtime import fonts
from pipelines.runtime.fonts import figure_fonts, figure_text, find_fonts, font_runs, legible
from tests.pipelines.runtime.made_font import write_font

RUN = "\u8dd1\u6b65"  # in Chinese


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The files of the installed fonts: none, until a test adds some."""
    files = []
    monkeypatch.setattr(fonts, "_FONT_OF", {})
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    return files


@pytest.mark.parametrize(
    "text",
    ["caf\u00e9 na\u00efve", "\u0431\u0435\u0433", "\u03c4\u03c1\u03ad\u03be\u03b9\u03bc\u03bf", "\u0628\u0647"],
)
def test_accents_cyrillic_greek_and_arabic_need_no_other_font(text, caplog):
    assert legible(text) == text
    [file] = find_fonts([text])
    assert file.endswith("DejaVuSans.ttf")
    assert not caplog.records


def test_letters_without_a_font_are_shown_as_codes_and_reported_once(caplog):
    texts = [f"{RUN} run", "\ub2ec\ub9ac\uae30", "\U0001f3c3", "\udcff"]
    find_fonts(texts)
    assert [legible(text) for text in texts] == ["[8dd1 6b65] run", "[b2ec b9ac ae30]", "[1f3c3]", "[dcff]"]
    [record] = caplog.records
    assert "No font here has 7 letters of CJK, HANGUL (" in record.getMessage()
    assert "fonts-noto-cjk" in record.getMessage()


def test_an_installed_font_draws_what_the_usual_one_lacks(installed, tmp_path, caplog):
    installed += [write_font(tmp_path / "few.ttf", RUN[0], family="Few"), write_font(tmp_path / "all.ttf", RUN)]
    assert legible(f"run {RUN}") == f"run {RUN}"
    (_usual, latin), (file, letters) = font_runs(f"run {RUN}")
    assert (latin, letters, file) == ("run ", RUN, installed[1])
    with figure_fonts([RUN]):
        assert rcParams["font.family"][-1] == "Made Here"
        assert drawn(RUN).mean() > 1.5 * drawn(RUN[0]).mean() > 0
    assert "Made Here" not in rcParams["font.family"]
    assert not caplog.records


def drawn(text):
    """Ink of the text in matplotlib, in [0, 1], where a letter that no font has is an error."""
    figure, file = Figure(figsize=(2, 1)), BytesIO()
    figure.text(0.1, 0.5, text)
    with warnings.catch_warnings(action="error"):
        figure.savefig(file)
    return 1 - np.asarray(Image.open(file).convert("L")) / 255


@pytest.mark.parametrize("damage", ["garbage", "absent"])
def test_a_damaged_font_is_passed_over(installed, tmp_path, damage):
    if damage == "garbage":
        (tmp_path / "bad.ttf").write_bytes(b"no font" * 100)
    installed += [str(tmp_path / "bad.ttf"), write_font(tmp_path / "good.ttf", RUN)]
    assert legible(RUN) == RUN


def test_a_font_that_has_a_box_for_every_letter_is_none(installed, tmp_path):
    installed.append(write_font(tmp_path / "boxes.ttf", RUN, family="Last Resort High-Efficiency"))
    assert legible(RUN) == "[8dd1 6b65]"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\tc\0d", "a b c d"),
        ("\x1b[31mred", "[31mred"),
        ("user\u202egnp.exe", "usergnp.exe"),
        (" a \u2003 b ", "a b"),
        ("cafe\u0301", "caf\u00e9"),
        ("", ""),
    ],
)
def test_a_text_is_one_line_without_what_disarranges_it(text, line):
    assert legible(text) == line


def test_a_long_text_loses_its_middle_because_names_often_differ_at_their_end():
    text = figure_text("passing American football (not in game)", max_letters=28)
    assert text == "passing Ameri...not in game)"
    assert figure_text("run", max_letters=28) == "run"


def test_no_text_is_a_formula():
    assert (drawn(figure_text("$x_1^2$ $")) != drawn("$x_1^2$ \\$")).any()
    assert drawn(figure_text("$\\frac{1$ $")).any()  # matplotlib cannot read this formula


def test_the_users_own_way_of_drawing_does_not_matter():
    with rc_context({"text.usetex": True, "font.family": ["Not Installed"]}), figure_fonts(["run"]):
        assert drawn("run").any()
