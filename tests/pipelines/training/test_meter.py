import numpy as np
import pytest

from pipelines.training.meter import Meter


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""

    class Clock:
        now = 0.0

    monkeypatch.setattr("pipelines.training.meter.time.perf_counter", lambda: Clock.now)
    return Clock


def test_workers_with_unequal_parts_of_a_batch_tell_the_same_speed_of_all(clock):
    batch_of_5 = {3: Meter(), 2: Meter()}
    for num_clips, meter in batch_of_5.items():
        clip_BTHWC = np.zeros((num_clips, 16, 8, 8, 3), np.uint8)
        for _ in range(4):
            with meter.step():
                meter.add({}, {"clip_BTHWC": clip_BTHWC, "num_padded_B": np.zeros(num_clips, int)})
                clock.now += 0.5
    speeds = [meter.speed(share=num_clips / 5) for num_clips, meter in batch_of_5.items()]
    assert [speed["throughput/clips_per_second"] for speed in speeds] == pytest.approx([10, 10])


def test_the_wait_for_data_is_reported_as_a_share_of_the_steps_and_the_first_by_itself(clock):
    def batches():
        for seconds in (3.0, 1.0):
            clock.now += seconds
            yield {}

    meter, coming = Meter(), batches()
    for _ in range(2):
        with meter.step():
            meter.next(coming)
            clock.now += 2.0
    assert meter.speed(share=1)["throughput/data_wait_share"] == 0.5
    assert meter.first_wait_seconds == 3
    meter.restart()
    assert meter.first_wait_seconds == 3
