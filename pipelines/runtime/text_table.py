"""Cells of text become an aligned table for a terminal."""

from collections.abc import Sequence


def format_table(
    header: Sequence[str] | None, rows: Sequence[Sequence[str]], *, align: Sequence[str] | None = None
) -> list[str]:
    """The lines of a table with aligned columns.

    Args:
        header: names of the columns; None for a table without them.
        rows: one cell for each column.
        align: `<` (left) or `>` (right) for each column; by default the first is `<`, the others are `>`.
    """
    lines = [*([header] if header else []), *rows]
    num_columns = len(lines[0]) if lines else 0
    align = align or ["<", *[">"] * (num_columns - 1)]
    widths = [max(len(line[column]) for line in lines) for column in range(num_columns)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, align, widths, strict=True)).rstrip()
        for line in lines
    ]
