"""Rows of a benchmark, their ratios, goals and table."""

import pytest

from pipelines.benchmark.measuring.rows import (
    BenchmarkRow,
    Goal,
    alternating_seconds,
    format_goals,
    format_rows,
    median_ratio,
)


def test_a_ratio_is_the_median_over_the_rounds():
    assert median_ratio([1.0, 8.0, 3.0], [1.0, 2.0, 1.0]) == 3.0


def test_the_table_puts_the_best_of_a_metric_first():
    def row(case, ratio):
        return BenchmarkRow("model", case, "forward", 1.0, "s", "r3d_18" if ratio else None, ratio)

    lines = format_rows([row("slow", 0.5), row("r3d_18", None), row("fast", 4.0)]).splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["fast", "r3d_18", "slow"]
    assert [line.split()[-1] for line in lines] == ["4.00x", "baseline", "0.50x"]


def test_the_table_tells_why_a_figure_is_absent():
    line = format_rows([BenchmarkRow("decode", "decord", "source", None, "samples/s", note="no such module")])
    assert "no such module" in line


def test_runs_take_turns_and_the_warm_up_does_not_count():
    order = []
    seconds = alternating_seconds(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2, clock=lambda: float(len(order))
    )
    assert order == ["a", "b"] * 3
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_a_warmed_run_is_made_once_untimed_before_it_is_timed():
    order = []
    seconds = alternating_seconds(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        repeats=2,
        clock=lambda: float(len(order)),
        is_warmed=True,
    )
    assert order == ["a", "a", "b", "b"] * 3
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal("speed", 1.3, 1.3), "met"),
        (Goal("speed", 1.2, 1.3), "missed"),
        (Goal("bytes", 0.1, 0.15, is_lower_better=True), "met"),
        (Goal("bytes", 0.2, 0.15, is_lower_better=True), "missed"),
        (Goal("speed", None, 1.3), "not measured"),
    ],
)
def test_a_goal_ends_with_its_verdict(goal, verdict):
    assert goal.verdict == verdict
    assert format_goals([goal]).endswith(verdict)
