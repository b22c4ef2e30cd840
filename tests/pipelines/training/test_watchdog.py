import signal
import subprocess
import sys

import pytest

PROGRAM = """
import time
from pipelines.training.watchdog import Watchdog
watchdog = Watchdog(0.5)
for _ in range(4):
    time.sleep(0.25)
    watchdog.note_progress()
print("was alive", flush=True)
def where_it_stood():
    time.sleep(60)
where_it_stood()
"""


@pytest.mark.heavy
def test_a_process_without_progress_ends_itself_and_says_where_it_stood():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30)
    assert ended.stdout == "was alive\n"
    assert ended.returncode == -signal.SIGKILL
    assert "no batch was finished in 0.5 s" in ended.stderr
    assert "where_it_stood" in ended.stderr
