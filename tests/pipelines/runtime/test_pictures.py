import pytest

from pipelines.runtime.pictures import optional_picture


def test_an_error_while_drawing_is_one_line_with_the_picture_and_the_reason(caplog):
    with optional_picture("checks.png"):
        raise RuntimeError("no room\nfor the axes")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert (
        record.getMessage()
        == "checks.png is not drawn, the job continues without it: RuntimeError: no room for the axes"
    )


def test_ctrl_c_while_drawing_ends_the_job():
    with pytest.raises(KeyboardInterrupt), optional_picture("checks.png"):
        raise KeyboardInterrupt
