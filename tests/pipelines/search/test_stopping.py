"""What trials report is kept, and who is stopped for it is the same however often a search starts again."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from pipelines.search.config import SearchConfig
from pipelines.search.ledger import Ledger, TrialRecord
from pipelines.search.space import Point
from pipelines.search.stopping import EarlyStopping, Reports

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


class Search:
    """Trials that report to a scheduler, as Ray Tune passes it on."""

    def __init__(self, folder, *, resources=None, **config):
        space = {"optimizer.lr": {"grid": [0.1, 0.2]}}
        self.config = SearchConfig(base="recipe.yaml", space=space, **config)
        self.ledger = Ledger(folder / "trials.jsonl")
        self.reports = Reports(self.config, self.ledger, resources or {"CPU": 1.0})
        self.scheduler = EarlyStopping(self.config, self.ledger, epochs=9)

    def report(self, name, epoch, value, *, pid=1, seconds=0.0):
        if name not in self.ledger.records:
            self.ledger.write(TrialRecord(name, 0, Point({}, {}), 0))
        result = {"epoch": float(epoch), "val/clip_top1": value, "config": {"trial": name}}
        self.reports(f"id-{name}", result | {"pid": pid, "time_total_s": seconds})
        trial = SimpleNamespace(trial_id=f"another-{pid}", config={"trial": name})
        return self.scheduler.on_trial_result(None, trial, result)


ASHA = {"scheduler": {"kind": "asha", "grace_epochs": 1, "reduction_factor": 3}}
MEDIAN = {"scheduler": {"kind": "median", "grace_epochs": 1}}


def test_asha_lets_the_best_third_go_on(tmp_path):
    search = Search(tmp_path, **ASHA)
    assert [search.report(name, 1, value) for name, value in (("a", 0.5), ("b", 0.9), ("c", 0.4), ("d", 0.95))] == [
        CONTINUE,
        CONTINUE,
        STOP,
        CONTINUE,
    ]


def test_the_median_of_three_stops_what_is_below(tmp_path):
    search = Search(tmp_path, **MEDIAN)
    for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.7)):
        assert search.report(name, 1, value) == CONTINUE
    assert search.report("d", 1, 0.1) == STOP
    assert search.report("e", 1, 0.9) == CONTINUE


@pytest.mark.parametrize("rule", [ASHA, MEDIAN])
def test_a_resumed_search_stops_whom_it_would_have_stopped(rule, tmp_path):
    before = Search(tmp_path, **rule)
    for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.7), ("d", 0.8)):
        before.report(name, 1, value)
    assert Search(tmp_path, **rule).report("e", 1, 0.1, pid=2) == STOP
    assert Search(tmp_path, **ASHA).report("e", 1, 0.1, pid=3) == CONTINUE  # what was judged once is not judged again


def test_what_is_done_twice_after_a_kill_counts_once(tmp_path):
    search = Search(tmp_path, **MEDIAN)
    search.report("a", 1, 0.5)
    again = Search(tmp_path, **MEDIAN)
    again.report("a", 1, 0.9, pid=2)
    assert list(map(tuple, again.ledger.records["a"].curve)) == [(1.0, 0.5)]


@pytest.mark.parametrize("rule", [ASHA, MEDIAN])
def test_a_trial_at_its_last_epoch_is_not_stopped_any_more(rule, tmp_path):
    search = Search(tmp_path, **rule)
    for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.7)):
        search.report(name, 9, value)
    assert search.report("d", 9, 0.1) == CONTINUE


def test_hours_of_processes_that_were_lost_and_of_earlier_starts_count(tmp_path):
    search = Search(tmp_path)
    search.report("a", 1, 0.5, seconds=1800.0)
    search.report("a", 2, 0.5, seconds=3600.0)
    search.report("a", 3, 0.5, pid=2, seconds=1800.0)
    assert search.ledger.records["a"].hours == 1.5
    later = Search(tmp_path)
    later.report("a", 4, 0.5, pid=3, seconds=1800.0)
    assert later.ledger.records["a"].hours == 2.0


@pytest.mark.parametrize(("limit", "is_spent"), [({"gpu_hours": 7.9}, True), ({"gpu_hours": 8.1}, False),
                                                 ({"cpu_hours": 3.9}, True), ({"cpu_hours": 4.1}, False)])  # fmt: skip
def test_a_budget_counts_all_workers_of_all_trials(limit, is_spent, tmp_path):
    search = Search(tmp_path, resources={"GPU": 4.0, "CPU": 2.0}, budget=limit)
    assert not search.reports.stop_all()
    for name in "ab":
        search.report(name, 1, 0.5, seconds=3600.0)
    assert search.reports.stop_all() == is_spent
