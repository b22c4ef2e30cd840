"""Rows of a table, and what the user or the paper's table names, become the row that the others are compared with.

The results have no say in it. If the best row were the reference, a table of equal rows would show differences.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.compare.paper_tables import PaperTable
from pipelines.compare.rows import Row
from t3d_core.errors import UserError


class Reference(NamedTuple):
    """The label of a row, and why it was chosen, as a reader is informed of it."""

    label: str
    reason: str


def choose_reference(rows: Sequence[Row], named: str | None, table: PaperTable | None) -> Reference:
    """Choose the row that is named, else the first baseline of the paper's table that has a row, else the first row.

    Args:
        rows: in the order in which their runs were named, or else made.
        named: label of a row, or name or id of one of its runs.
        table: of the paper.

    Raises:
        UserError: no row, or several rows, are named so.
    """
    if named is not None:
        return Reference(_named_row(rows, named).label, "the reference that was named")
    for baseline in table.baselines if table else ():
        for row in rows:
            if row.paper is not None and row.paper.label == baseline:
                return Reference(row.label, "the baseline of the paper's table")
    return Reference(rows[0].label, "the first row in the order in which runs were named, or else made")


def _named_row(rows: Sequence[Row], named: str) -> Row:
    found = [row for row in rows if row.label == named]
    found = found or [row for row in rows if any(named in (each.run.run_id, each.run.name) for each in row.runs)]
    if len(found) != 1:
        problem = "runs of several rows are called so" if found else "no row, and no run of a row, is called so"
        labels = "; ".join(repr(row.label) for row in found or rows)
        raise UserError(f"reference {named!r}: {problem}: give one of the rows {labels}")
    return found[0]
