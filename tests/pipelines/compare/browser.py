"""A browser without a window, for tests of pages."""

import shutil
import subprocess

import pytest

BROWSER = pytest.mark.skipif(shutil.which("chromium") is None, reason="no headless browser: apt-get install chromium")


class Browser:
    """A browser without a window; pictures stay in pytest's folder of the test (`--basetemp` says where)."""

    def __init__(self, folder):
        self.folder = folder
        self._command = [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"),
            *(f"--user-data-dir={folder}/profile", "--window-size=1200,2400", "--virtual-time-budget=30000"),
        ]

    def look(self, address):
        """What the page has come to, what the browser complains of, and how large a picture of it is, in bytes."""
        ran = self._run("--dump-dom", address)
        self._run(f"--screenshot={self.folder}/page.png", address)
        complaints = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
        return ran.stdout, complaints, (self.folder / "page.png").stat().st_size

    def _run(self, *options):
        return subprocess.run([*self._command, *options], capture_output=True, text=True, timeout=120, check=True)
