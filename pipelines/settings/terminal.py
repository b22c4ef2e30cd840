"""Text for a terminal: short paths, and the aligned summary at the end of a job."""

import re
from collections.abc import Sequence
from pathlib import Path

Field = tuple[str, str]  # a label, which may be empty, and its text


def format_summary(fields: Sequence[Field]) -> str:
    """Aligned lines `label:  text`, one for each field; a field without a label continues the one before."""
    width = max((len(label) for label, _ in fields), default=0) + 1
    return "\n".join(f"{f'{label}:' if label else '':{width}}  {text}" for label, text in fields)


def seen_from_here(text: str) -> str:
    """The text with paths below the working folder as relative ones, as a person standing there would type them."""
    here = str(Path.cwd())
    if here == "/":
        return text
    # A path begins the text, or follows a blank, a quote, a bracket, an equals sign, or the scheme of a sqlite store.
    return re.sub(rf"(^|(?<=[\s'\"(=])|(?<=sqlite:///)){re.escape(here)}/(?=\S)", "", text, flags=re.MULTILINE)
