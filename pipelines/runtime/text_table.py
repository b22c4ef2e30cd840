"""Cells of text become a table for a terminal."""

from collections.abc import Sequence


def format_table(
    header: Sequence[str] | None, rows: Sequence[Sequence[str]], *, align: Sequence[str] | None = None
) -> list[str]:
    """Lines with columns under each other.

    Args:
        header: names of the columns; none for a table without.
        rows: a cell a column.
        align: `<` (left) or `>` (right) a column; by default the first is to the left, the others to the right.
    """
    lines = [*([header] if header else []), *rows]
    num_columns = len(lines[0]) if lines else 0
    align = align or ["<", *[">"] * (num_columns - 1)]
    widths = [max(len(line[column]) for line in lines) for column in range(num_columns)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, align, widths, strict=True)).rstrip()
        for line in lines
    ]
