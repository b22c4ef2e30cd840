"""A process that makes no progress ends itself, so that its supervisor starts it again."""

import faulthandler

_STDERR = 2  # the descriptor, because a worker's `sys.stderr` may be an object of Ray's


class Watchdog:
    """Ends its own process with status 1 when `note_progress` has not been called for `seconds`.

    The timer is a C thread of `faulthandler`, so it also fires while native code holds the interpreter's lock. That is
    the hang that it exists for. It writes `Timeout (H:MM:SS)!` and the stacks of all Python threads to the log, then
    ends the process. A process has one such timer.
    """

    def __init__(self, seconds: float) -> None:
        """Set the time; the timer starts with the block."""
        self._seconds = seconds

    def __enter__(self) -> "Watchdog":
        self.note_progress()
        return self

    def note_progress(self) -> None:
        """Note that something was finished: the timer starts again."""
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=_STDERR)

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
