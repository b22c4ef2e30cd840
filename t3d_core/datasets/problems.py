"""What is wrong with many rows or files becomes one error: a count and the first few."""

from types import TracebackType

from t3d_core.errors import UserError

_MAX_EXAMPLES = 3


class Problems:
    """Collects errors, so that a list is corrected once and not row by row.

    problems = Problems()
    for row in rows:
        with problems:
            check(row)  # raises UserError
    problems.check()
    """

    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def __enter__(self) -> None:
        """Collect the UserError that the block raises, which ends the block."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if not isinstance(error, UserError):
            return False
        self.add(str(error))
        return True

    def add(self, message: str) -> None:
        """Collect one error."""
        self._count += 1
        if len(self._first) < _MAX_EXAMPLES:
            self._first.append(message)

    def check(self) -> None:
        """Raise all that was collected, if anything, as one UserError of one line."""
        if self._count == 1:
            raise UserError(self._first[0])
        if self._count:
            more = "; ..." if self._count > len(self._first) else ""
            raise UserError(f"{self._count:,} errors: {'; '.join(self._first)}{more}")
