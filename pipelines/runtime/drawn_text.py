"""Text of any script is drawn into pictures of Pillow, measured in pixels and shortened to a width.

Texts are `legible` ones of `fonts.py`. Pillow's own font draws ASCII.
"""

import functools
from typing import Any

from PIL import ImageDraw, ImageFont

from pipelines.runtime.fonts import font_runs

Colour = tuple[int, int, int]


def font_parts(text: str, size: int) -> list[tuple[Any, str]]:
    """The text in parts, each with its font."""
    parts = [(None, text)] if text.isascii() else font_runs(text)
    return [(_font(file, size), run) for file, run in parts]


def text_length(text: str, size: int) -> float:
    """Pixels from the begin of the text to its end."""
    return sum(font.getlength(run) for font, run in font_parts(text, size))


def write_text(
    draw: ImageDraw.ImageDraw, text: str, size: int, *, left: float, baseline: float, colour: Colour
) -> None:
    """Draw the text on one line."""
    for font, run in font_parts(text, size):
        draw.text((left, baseline), run, fill=colour, font=font, anchor="ls")
        left += font.getlength(run)


def fitted_text(text: str, size: int, width: float) -> str:
    """The text, without its middle where it is wider than `width` pixels."""
    shortened, kept = text, len(text)
    while text_length(shortened, size) > width and kept > 2:
        kept -= 1
        shortened = f"{text[: (kept + 1) // 2]}...{text[-(kept // 2) :]}"
    return shortened


@functools.cache
def _font(file: str | None, size: int) -> Any:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
