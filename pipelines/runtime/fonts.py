"""Fonts for labels and paths of any script: DejaVu Sans, and for what it lacks the fonts that are installed here.

DejaVu Sans comes with matplotlib and has Latin, Greek, Cyrillic and Arabic letters. A letter that no font here has is
drawn as its code, `[8dd1]`, and is reported once.
"""

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib import font_manager, rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import TextPath

_USUAL = "DejaVu Sans"
_LOG = logging.getLogger(__name__)
_FONT_OF: dict[str, str | None] = {}  # by letter: the file of a font that has it, None if no font here has it


@contextmanager
def figure_fonts(texts: Iterable[str]) -> Iterator[None]:
    """Let matplotlib draw these texts, with whatever it draws in the block."""
    files = find_fonts(texts)
    with rc_context({"font.family": [_USUAL, *map(_family, files)], "text.usetex": False}):
        yield


def figure_text(text: str, *, max_letters: int | None = None) -> str:
    """The text as matplotlib draws it letter by letter: on one line, no formula, without its middle if it is long."""
    shown = legible(text)
    if max_letters is not None and len(shown) > max_letters:
        kept = max_letters - 3
        shown = f"{shown[: kept - kept // 2]}...{shown[-(kept // 2) :]}"
    return shown.replace("$", r"\$")  # otherwise two of them enclose a formula


def text_width(text: str, **font: Any) -> float:
    """Inches that a line of `figure_text` takes in a font of matplotlib, such as `size=8`."""
    return TextPath((0, 0), text, prop=FontProperties(**font)).get_extents().width / 72


def legible(text: str) -> str:
    """The text on one line, without control characters, and with codes for letters that no font here has."""
    line = _on_one_line(text)
    find_fonts([line])
    return "".join(
        "".join(run) if file else f"[{' '.join(f'{ord(letter):04x}' for letter in run)}]" for file, run in _runs(line)
    )


def font_runs(text: str) -> list[tuple[str, str]]:
    """A legible text in parts, each with the file of the font that has its letters."""
    find_fonts([text])
    return [(file, "".join(run)) for file, run in _runs(text) if file]


def find_fonts(texts: Iterable[str]) -> list[str]:
    """The files of the fonts that have the letters of these texts; letters without a font are reported together."""
    letters = set("".join(map(_on_one_line, texts)))
    if new := letters - _FONT_OF.keys():
        _FONT_OF.update(_look_for(new))
        if lacking := {letter for letter in new if _FONT_OF[letter] is None}:
            _report(lacking)
    return sorted({file for letter in letters if (file := _FONT_OF[letter])})


def _runs(line: str) -> Iterator[tuple[str | None, Iterator[str]]]:
    return groupby(line, key=lambda letter: _FONT_OF[letter])


def _on_one_line(text: str) -> str:
    """Accents join their letters, control characters become blanks, and marks of the writing direction disappear."""
    letters = (letter for letter in unicodedata.normalize("NFC", text) if unicodedata.category(letter) != "Cf")
    return " ".join("".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in letters).split())


def _look_for(letters: set[str]) -> dict[str, str | None]:
    """The fewest fonts first: each one has most of the letters that are left."""
    usual = font_manager.findfont(_USUAL)
    found: dict[str, str | None] = dict.fromkeys(letters) | dict.fromkeys(_letters_in(usual, letters), str(usual))
    lacking = {letter for letter, file in found.items() if file is None}
    # Looked for on the disk, because matplotlib's own list lacks fonts that were installed after its first start.
    installed = sorted(
        font_manager.findSystemFonts(), key=lambda file: ("regular" not in Path(file).name.lower(), file)
    )
    has = {file: _letters_in(file, lacking) for file in (installed if lacking else [])}
    while has and (best := max(has, key=lambda file: len(has[file] & lacking))) and has[best] & lacking:
        found |= dict.fromkeys(has[best] & lacking, best)
        lacking -= has[best]
    return found


def _letters_in(file: str, letters: set[str]) -> set[str]:
    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):  # a damaged file
        return set()
    # A font of bitmaps has one size. "Last resort" fonts have a box for every letter.
    if not font.scalable or "lastresort" in font.family_name.replace(" ", "").lower():
        return set()
    return {letter for letter in letters if font.get_char_index(ord(letter))}


def _family(file: str) -> str:
    known = font_manager.fontManager.ttflist
    if not any(entry.fname == file for entry in known):
        font_manager.fontManager.addfont(file)
    return next(entry.name for entry in known if entry.fname == file)


def _report(lacking: set[str]) -> None:
    scripts = {unicodedata.name(letter, "unknown").split()[0] for letter in lacking if letter.isalpha()}
    letters = "".join(sorted(lacking)[:20]).encode("utf-8", "backslashreplace").decode()
    _LOG.warning(
        "No font here has %d letters of %s (%s): pictures show their codes. Install fonts that have them, such as "
        "fonts-noto-cjk (Chinese, Japanese, Korean), fonts-noto-core (other scripts), fonts-symbola (symbols)",
        len(lacking),
        ", ".join(sorted(scripts)) or "symbols",
        letters,
    )
