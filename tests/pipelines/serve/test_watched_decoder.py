import pytest

from pipelines.serve.refusal import Refusal
from pipelines.serve.watched_decoder import StoppedError, Watch


def test_a_request_whose_time_is_over_gets_504_and_one_that_nobody_waits_for_ends():
    watch = Watch(seconds=60)
    assert 0 < watch.remaining_seconds() <= 60
    with pytest.raises(Refusal, match="no answer within 0 s") as refused:
        Watch(seconds=0).remaining_seconds()
    assert refused.value.status == 504
    watch.stop()
    with pytest.raises(StoppedError):
        watch.remaining_seconds()
