import json
import math
import statistics
import time

import pytest

from pipelines.tracking import metric_log
from pipelines.tracking.metric_log import MetricLog, drain
from pipelines.tracking.runs import MAX_POINTS, PointsRefusedError
from pipelines.tracking.store import StoreAwayError


class FakeRun:
    """Stands in for a run in MLflow: points are a set there, and a batch with one bad point is refused whole."""

    tracking_uri = "http://mlflow.example"

    def __init__(self):
        self.points = []
        self.trouble = None
        self.num_calls = 0

    def log_points(self, points):
        self.num_calls += 1
        if self.trouble is not None:
            raise self.trouble
        assert len(points) <= MAX_POINTS
        if any("?" in point.name for point in points):
            raise PointsRefusedError("names may not contain ?")
        self.points += [point for point in points if point not in self.points]

    def curve(self, name):
        return [(point.step, point.value) for point in self.points if point.name == name]


@pytest.fixture
def run():
    return FakeRun()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch):
    monkeypatch.setattr(metric_log, "_SECONDS_BETWEEN_SENDS", 0.005)
    monkeypatch.setattr(metric_log, "_MOST_SECONDS_BETWEEN_TRIES", 0.01)


def wait_for(condition, *, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def log_and_leave(run, path, steps, *, name="loss"):
    """A process that logs and is killed before it has sent anything."""
    trouble, run.trouble = run.trouble, StoreAwayError("away")
    log = MetricLog(run, path)
    for step in steps:
        log.log({name: step / 10}, step=step)
    assert not log.close(timeout_seconds=0)
    log._thread.join()
    run.trouble = trouble


def test_an_outage_neither_stops_training_nor_costs_a_point(run, path, caplog):
    log = MetricLog(run, path)
    log.log({"loss": 3.0, "lr": 0.1}, step=1)
    wait_for(lambda: len(run.points) == 2)
    run.trouble = StoreAwayError("connection refused")
    for step in range(2, 50):
        log.log({"loss": 3.0 / step, "lr": 0.1}, step=step)
        time.sleep(0.001)
    assert len(run.points) == 2
    run.trouble = None
    assert log.close(timeout_seconds=10)
    assert run.curve("loss") == [(step, 3.0 / step) for step in range(1, 50)]
    assert len(run.points) == 2 * 49
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, "once when it is away, once when it is back"
    assert "connection refused" in said[0]
    assert "reached again" in said[1]


def test_a_point_is_in_mlflow_soon_without_being_asked_for(run, path):
    log = MetricLog(run, path)
    log.log({"loss": 1.0}, step=7)
    wait_for(lambda: run.curve("loss") == [(7, 1.0)], seconds=2)
    (line,) = path.read_text().splitlines()
    assert run.points[0].time_ms == json.loads(line)["time_ms"]
    log.close(timeout_seconds=1)


def test_any_error_of_sending_is_tried_again(run, path):
    run.trouble = RuntimeError("never seen before")
    log = MetricLog(run, path)
    log.log({"loss": 1.0}, step=1)
    wait_for(lambda: run.num_calls > 2)
    run.trouble = None
    assert log.close(timeout_seconds=10)
    assert run.curve("loss") == [(1, 1.0)]


def test_who_takes_over_sends_the_rest_and_only_that(run, path):
    first = MetricLog(run, path)
    first.log({"loss": 0.0}, step=0)
    assert first.close(timeout_seconds=10)
    log_and_leave(run, path, range(1, 5))
    sent_before, run.points = run.points, []
    second = MetricLog(run, path)
    second.log({"loss": 0.5}, step=5)
    assert second.close(timeout_seconds=10)
    assert len(sent_before) == 1
    assert run.curve("loss") == [(step, step / 10) for step in range(1, 6)]


def test_where_a_lost_machine_left_no_position_all_is_sent_anew(run, path):
    log_and_leave(run, path, [1, 2])
    path.with_name("metrics.jsonl.sent").write_text("")
    drain(run, path, timeout_seconds=5)
    assert [step for step, _ in run.curve("loss")] == [1, 2]


def test_a_line_cut_short_by_a_kill_is_cut_away(run, path):
    log_and_leave(run, path, [1, 2])
    with path.open("ab") as file:
        file.write(b'{"time_ms": 12, "step": 3, "metr')
    drain(run, path, timeout_seconds=1)
    assert run.curve("loss") == [(1, 0.1), (2, 0.2)]
    log = MetricLog(run, path)
    log.log({"loss": 0.3}, step=3)
    assert log.close(timeout_seconds=10)
    assert run.curve("loss") == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_redone_steps_leave_the_curve_as_it_was(run, path):
    first = MetricLog(run, path)
    for step in (10, 20, 30):
        first.log({"loss": float(step), "throughput": 5.0}, step=step)
    first.log({"val": 0.5}, step=20)
    first.close(timeout_seconds=10)
    again = MetricLog(run, path)
    for step in (15, 20, 25, 30, 35, 40):
        again.log({"loss": float(step), "throughput": 7.0, "new": 1.0}, step=step)
    again.log({"val": 0.5}, step=20)
    again.log({"val": 0.4}, step=40)
    assert again.close(timeout_seconds=10)
    assert run.curve("loss") == [(step, float(step)) for step in (10, 20, 30, 35, 40)]
    assert run.curve("throughput") == [(10, 5.0), (20, 5.0), (30, 5.0), (35, 7.0), (40, 7.0)]
    assert [step for step, _ in run.curve("new")] == [15, 20, 25, 30, 35, 40]
    assert run.curve("val") == [(20, 0.5), (40, 0.4)]


def test_a_point_that_mlflow_refuses_does_not_hold_up_the_others(run, path, caplog):
    log = MetricLog(run, path)
    for step in range(20):
        log.log({"loss": 1.0, "top1/who?": 0.5, "lr": 0.1}, step=step)
    assert log.close(timeout_seconds=10)
    assert len(run.curve("loss")) == len(run.curve("lr")) == 20
    (said,) = caplog.records
    assert "top1/who?" in said.getMessage()


def test_nan_and_infinity_come_through_the_file(run, path):
    log = MetricLog(run, path)
    log.log({"loss": math.nan, "grad_norm": math.inf}, step=1)
    assert log.close(timeout_seconds=10)
    assert math.isnan(run.curve("loss")[0][1])
    assert run.curve("grad_norm") == [(1, math.inf)]


def test_more_points_than_one_call_takes_are_sent_in_several(run, path):
    log = MetricLog(run, path)
    log.log({f"top1/{index}": 0.5 for index in range(MAX_POINTS + 1)}, step=1)
    assert log.close(timeout_seconds=10)
    assert len(run.points) == MAX_POINTS + 1


def test_the_driver_sends_what_the_workers_left(run, path):
    log_and_leave(run, path, range(1000))
    drain(run, path, timeout_seconds=10)
    assert run.curve("loss") == [(step, step / 10) for step in range(1000)]
    run.num_calls = 0
    drain(run, path, timeout_seconds=10)
    assert run.num_calls == 0


def test_a_run_that_logged_nothing_has_nothing_to_send(run, path):
    drain(run, path, timeout_seconds=0)


def test_what_cannot_be_sent_is_named_with_its_place_and_the_cure(run, path):
    first = MetricLog(run, path)
    first.log({"loss": 0.0}, step=11)
    first.close(timeout_seconds=10)
    log_and_leave(run, path, [12, 13])
    run.trouble = StoreAwayError("connection refused")
    with pytest.raises(ValueError, match=rf"from step 12 on.*refused.*{path}.*same --name"):
        drain(run, path, timeout_seconds=0.02)


def test_lines_damaged_by_a_power_cut_are_passed_over_and_a_lost_end_is_sent_anew(run, path):
    log_and_leave(run, path, [1])
    with path.open("ab") as file:
        file.write(b"\0" * 40 + b"\n")
    log_and_leave(run, path, [2])
    drain(run, path, timeout_seconds=10)
    assert run.curve("loss") == [(1, 0.1), (2, 0.2)]
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    log_and_leave(run, path, [3])
    drain(run, path, timeout_seconds=10)
    assert run.curve("loss") == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_full_disk_is_a_clear_error(run, path):
    log = MetricLog(run, path)
    log._file = open("/dev/full", "wb")
    with pytest.raises(ValueError, match=rf"step 4 cannot be written to {path} .*No space left.*--name"):
        log.log({"loss": 1.0}, step=4)


def test_logging_takes_less_than_a_millisecond(run, path):
    log = MetricLog(run, path)
    metrics = {f"train/metric_{index}": index / 3 for index in range(12)}
    seconds = []
    for step in range(300):
        started = time.perf_counter()
        log.log(metrics, step=step)
        seconds.append(time.perf_counter() - started)
    log.close(timeout_seconds=10)
    assert statistics.median(seconds) < 1e-3
