"""One process at a time writes to a folder of shards."""

import os
import threading

import pytest

from pipelines.shards.folder import ShardFolder


def test_a_folder_that_another_process_writes_to_is_refused_by_a_job_and_awaited_by_a_stage(tmp_path):
    folder, order = ShardFolder(tmp_path), []

    def wait():
        with folder.locked(is_patient=True):
            order.append("second")

    with folder.locked(is_patient=False):
        with (
            pytest.raises(ValueError, match=rf"another prepare job \(process {os.getpid()} on .*\) is writing"),
            folder.locked(is_patient=False),
        ):
            pass
        second = threading.Thread(target=wait)
        second.start()
        second.join(timeout=0.3)
        order.append("first")
    second.join()
    assert order == ["first", "second"]
