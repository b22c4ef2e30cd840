import subprocess
import sys

import pytest

pytestmark = pytest.mark.heavy
PROGRAM = """
import ctypes, time
from pipelines.training.watchdog import Watchdog

def wait_in_python():
    time.sleep(60)

def wait_in_native_code_that_holds_the_lock():
    ctypes.PyDLL(None).sleep(60)

with Watchdog(0.5) as watchdog:
    for _ in range(4):
        time.sleep(0.25)
        watchdog.note_progress()
    print("was alive", flush=True)
    {hang}()
print("woke up", flush=True)
"""


@pytest.mark.parametrize("hang", ["wait_in_python", "wait_in_native_code_that_holds_the_lock"])
def test_a_process_without_progress_ends_itself_and_leaves_its_stack(hang):
    command = [sys.executable, "-c", PROGRAM.replace("{hang}", hang)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.stdout == "was alive\n"
    assert ended.returncode == 1
    assert "Timeout (0:00:00.500000)!" in ended.stderr
    assert f"in {hang}" in ended.stderr


def test_after_its_block_nothing_ends_the_process():
    program = "import time\nfrom pipelines.training.watchdog import Watchdog\nwith Watchdog(0.2): pass\ntime.sleep(0.6)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == 0
