import errno
import os

import pytest

from pipelines.prepare import local_copies
from pipelines.prepare.local_copies import LocalCopy, new_copy


def test_copies_that_killed_processes_left_are_swept_and_those_in_use_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "t3d-copy-left.mp4").touch()
    local_copies._sweep.cache_clear()
    with new_copy(suffix=".mp4") as used:
        used.write(b"abc")
        local_copies._sweep.cache_clear()
        with new_copy(suffix="") as other:
            paths = [copy.local_file().path for copy in (used, other)]
            assert {path.name for path in tmp_path.iterdir()} == {os.path.basename(path) for path in paths}
        assert used.local_file().num_bytes == 3
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named():
    class Full:
        name = "/tmp/copy.mp4"

        def write(self, part):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"for the copy of a remote video.*copy\.mp4") as raised:
        LocalCopy(Full()).write(b"a")
    assert raised.value.errno == errno.ENOSPC
