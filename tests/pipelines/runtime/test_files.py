"""Files are whole or absent."""

import pytest

from pipelines.runtime.files import whole_file


def test_a_file_that_cannot_be_finished_leaves_nothing_and_keeps_the_former_one(tmp_path):
    def write_half():
        with whole_file(tmp_path / "file") as partial:
            partial.write_text("half")
            raise RuntimeError("disk")

    (tmp_path / "file").write_text("former")
    with pytest.raises(RuntimeError, match="disk"):
        write_half()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["former"]
