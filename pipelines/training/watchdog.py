"""A process that makes no progress ends itself, so that whoever watches it starts it again."""

import faulthandler
import os
import signal
import sys
import threading
import time


class Watchdog:
    """Kills its own process when `note_progress` has not been called for `seconds`; first tells where it stood."""

    def __init__(self, seconds: float) -> None:
        """Start watching."""
        self._seconds, self._noted = seconds, time.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def note_progress(self) -> None:
        """Tell that something was finished."""
        self._noted = time.monotonic()

    def _watch(self) -> None:
        while (left := self._noted + self._seconds - time.monotonic()) > 0:
            time.sleep(left)
        print(f"error: no batch was finished in {self._seconds:g} s: this worker ends; it stood", file=sys.stderr)
        faulthandler.dump_traceback(all_threads=True)
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)  # a thread that hangs in native code ends by nothing less
