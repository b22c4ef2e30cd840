"""Which trials a search gives Ray Tune, in which order, and what a restart makes of it; nothing is trained."""

import json
import math

import pytest
from ray.tune.search import Searcher

from pipelines.search.config import SearchConfig
from pipelines.search.ledger import Ledger
from pipelines.search.trial_source import TrialSource

GRID = {"optimizer.lr": {"grid": [0.1, 0.2]}}
INTERVALS = 4
DRAWN = {"optimizer.lr": {"uniform": [0.0001, 1.0]}}


def chain_of(settings):
    """The transfers before a trial of these settings."""
    start = settings.get("init_from") or settings.get("inflate_from")
    return {None: [], "transfer/both": ["transfer/twin", "transfer/both"]}.get(start, [start])


class Driver:
    """Asks for trials as Ray Tune does, and ends each with a result."""

    def __init__(self, path, *, reject=lambda point: None, max_concurrent=1, **config):
        self.config = SearchConfig(base="recipe.yaml", **{"seeds": (0, 1), **config})
        self.ledger = Ledger(path / "trials.jsonl")
        self.source = TrialSource(
            self.config,
            self.ledger,
            max_concurrent=max_concurrent,
            reject=reject,
            ended=self._ended,
            take_over=lambda heir: self.taken_over.append((heir.record.name, heir.donor.name)),
            transfers_of=lambda record: [f"{name}-seed{record.seed}" for name in chain_of(record.point.settings)],
            transferred=lambda name, report, is_lost: "no clips" if is_lost else "",
        )
        self.asked, self.taken_over = 0, []

    def _ended(self, record, metrics, *, is_lost):
        if self.config.scheduler.kind == "pbt" and len(record.scores) < INTERVALS - 1:
            scores = [*record.scores, metrics["val/clip_top1"]]
            return self.ledger.update(record.name, state="failed" if is_lost else "waiting", scores=scores)
        reason = metrics.get("failure", "")
        state = "failed" if is_lost or reason else "ended"
        return self.ledger.update(record.name, state=state, reason=reason, metrics=metrics)

    def ask(self):
        self.asked += 1
        return f"id{self.asked}", self.source.suggest(f"id{self.asked}")

    def run(self, trial_id, value=0.5):
        self.source.on_trial_complete(trial_id, {"val/clip_top1": value, "model/gmacs": 1.0})

    def run_all(self, most=100, value=lambda assignment: 0.5):
        names = []
        while len(names) < most:
            trial_id, assignment = self.ask()
            if assignment == Searcher.FINISHED:
                break
            names.append(assignment["trial"])
            self.run(trial_id, value(assignment))
        return names


def test_a_seed_goes_through_all_points_of_a_grid_before_the_next(tmp_path):
    assert Driver(tmp_path, space=GRID).run_all() == ["p000-seed0", "p001-seed0", "p000-seed1", "p001-seed1"]


def test_no_more_trials_run_than_there_is_room_for(tmp_path):
    driver = Driver(tmp_path, space=GRID, max_concurrent=2)
    first, _ = driver.ask()
    assert driver.ask()[1]["trial"] == "p001-seed0"
    assert driver.ask()[1] is None
    driver.run(first)
    assert driver.ask()[1]["trial"] == "p000-seed1"


def test_a_search_that_was_killed_resumes_what_was_interrupted_and_runs_nothing_twice(tmp_path):
    killed = Driver(tmp_path, space=GRID)
    killed.run_all(most=1)
    killed.ask()  # is under way when the driver dies
    assert Driver(tmp_path, space=GRID).run_all() == ["p001-seed0", "p000-seed1", "p001-seed1"]
    assert Driver(tmp_path, space=GRID).run_all() == []


def test_a_line_that_a_full_disk_cut_short_costs_its_trial_alone(tmp_path):
    Driver(tmp_path, space=GRID).run_all()
    text = (tmp_path / "trials.jsonl").read_text()
    (tmp_path / "trials.jsonl").write_text(text[:-20])
    assert Driver(tmp_path, space=GRID).run_all() == ["p001-seed1"]
    assert Driver(tmp_path, space=GRID).run_all() == []


def test_what_failed_is_tried_again_by_the_next_start_alone(tmp_path):
    driver = Driver(tmp_path, space=GRID)
    driver.source.on_trial_complete(driver.ask()[0], None, error=True)
    assert driver.run_all() == ["p001-seed0", "p000-seed1", "p001-seed1"]
    assert Driver(tmp_path, space=GRID).run_all() == ["p000-seed0"]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_drawn_point_goes_through_all_seeds_and_restarts_change_nothing(tmp_path, kind):
    sampler = {"kind": kind, "num_points": 15}

    def value(assignment):
        return json.loads(assignment["point"])["settings"]["optimizer.lr"]

    (tmp_path / "once").mkdir()
    (tmp_path / "cut").mkdir()
    once = Driver(tmp_path / "once", space=DRAWN, sampler=sampler)
    assert once.run_all(value=value)[:4] == ["p000-seed0", "p000-seed1", "p001-seed0", "p001-seed1"]
    for most in (5, 8, 100):
        Driver(tmp_path / "cut", space=DRAWN, sampler=sampler).run_all(most=most, value=value)
    drawn = [
        [record.point.settings for record in Ledger(tmp_path / each / "trials.jsonl").records.values()]
        for each in ("once", "cut")
    ]
    assert len(drawn[0]) == 30
    assert drawn[0] == drawn[1]


def test_a_tree_parzen_sampler_learns_where_points_do_well(tmp_path):
    """The best is at 0.5: points drawn after the first ones lie nearer to it than chance would have them."""
    driver = Driver(tmp_path, space={"optimizer.lr": {"uniform": [0.0001, 1.0]}}, seeds=(0,),
                    sampler={"kind": "tpe", "num_points": 60})  # fmt: skip
    while (asked := driver.ask())[1] != Searcher.FINISHED:
        lr = driver.ledger.records[asked[1]["trial"]].point.settings["optimizer.lr"]
        driver.run(asked[0], -abs(lr - 0.5))
    distances = [abs(record.point.settings["optimizer.lr"] - 0.5) for record in driver.ledger.records.values()]
    assert sum(distances[30:]) / 30 < 0.125  # half of chance's 0.25


def test_points_beyond_the_limits_are_kept_with_their_reason_and_never_trained(tmp_path):
    def reject(point):
        return "too dear" if point.settings["optimizer.lr"] > 0.15 else None

    driver = Driver(tmp_path, space=GRID, reject=reject)
    assert driver.run_all() == ["p000-seed0", "p000-seed1"]
    assert driver.ledger.records["p001"].state == "rejected"
    assert driver.ledger.records["p001"].reason == "too dear"


def test_a_space_without_a_point_within_the_limits_is_given_up(tmp_path):
    driver = Driver(tmp_path, space=DRAWN, sampler={"kind": "random", "num_points": 1}, reject=lambda point: "too dear")
    with pytest.raises(ValueError, match="200 points in a row were rejected, the last because of too dear"):
        driver.ask()


def test_a_point_whose_metric_is_no_number_is_no_reason_to_stop(tmp_path):
    sampler = {"kind": "tpe", "num_points": 2}
    Driver(tmp_path, space=DRAWN, sampler=sampler).run_all(most=2, value=lambda assignment: math.nan)
    assert len(Driver(tmp_path, space=DRAWN, sampler=sampler).run_all()) == 2


def test_a_trial_that_is_lost_leaves_the_others_to_speak_for_its_point(tmp_path):
    driver = Driver(tmp_path, space=DRAWN, sampler={"kind": "random", "num_points": 1})
    trial_id, _ = driver.ask()
    driver.source.on_trial_complete(trial_id, None, error=True)
    driver.run(driver.ask()[0], 0.75)
    [study_trial] = driver.source._study.trials
    assert study_trial.value == 0.75


STARTS = {
    "weights": {"grid": {"scratch": {}, **{each: {"init_from": f"transfer/{each}"} for each in ("paper", "modern")}}}
}


def asked_for(driver):
    """What a driver is given next: the id, and a trial or the transfer before it."""
    trial_id, assignment = driver.ask()
    if assignment is None or assignment == Searcher.FINISHED:
        return trial_id, assignment
    return trial_id, f"{'transfer of ' if assignment['transfer'] else ''}{assignment['trial']}"


def test_a_transfer_runs_before_its_trials_and_others_run_meanwhile(tmp_path):
    driver = Driver(tmp_path, space=STARTS, max_concurrent=2)
    scratch, paper = asked_for(driver), asked_for(driver)
    assert (scratch[1], paper[1]) == ("p000-seed0", "transfer of p001-seed0")
    assert driver.ask()[1] is None, "there is no room"
    driver.run(scratch[0])
    for expected in ("transfer of p002-seed0", "p002-seed0", "p000-seed1", "transfer of p001-seed1", "p001-seed1"):
        trial_id, given = asked_for(driver)
        assert given == expected
        driver.run(trial_id)
    driver.run(paper[0])
    assert asked_for(driver)[1] == "p001-seed0"
    assert [record.state for record in driver.ledger.records.values()].count("ended") == 4


def test_trials_that_agree_in_their_transfer_wait_for_one_run_of_it(tmp_path):
    space = {"data.fold": {"grid": [1, 2, 3]}, "weights": {"grid": {"paper": {"init_from": "transfer/paper"}}}}
    driver = Driver(tmp_path, space=space, seeds=(0,), max_concurrent=3)
    trial_id, given = asked_for(driver)
    assert given == "transfer of p000-seed0"
    assert driver.ask()[1] is None, "all others wait for it"
    driver.run(trial_id)
    assert [asked_for(driver)[1] for _ in range(3)] == [f"p00{number}-seed0" for number in range(3)]


def test_transfers_that_start_from_each_other_run_in_turn_and_each_once(tmp_path):
    starts = {"inflation": {"inflate_from": "transfer/twin"}, "both": {"init_from": "transfer/both"}}
    driver = Driver(tmp_path, space={"weights": {"grid": starts}}, seeds=(0,), max_concurrent=3)
    twin = driver.ask()
    assert twin[1]["transfer"] == "transfer/twin-seed0"
    assert driver.ask()[1] is None, "the other trial waits for the same transfer"
    driver.run(twin[0])
    given = {assignment["trial"]: (trial_id, assignment) for trial_id, assignment in (driver.ask(), driver.ask())}
    assert [given[name][1]["transfer"] for name in ("p000-seed0", "p001-seed0")] == ["", "transfer/both-seed0"]
    assert driver.ask()[1] is None
    driver.run(given["p001-seed0"][0])
    assert asked_for(driver)[1] == "p001-seed0"


def test_a_transfer_that_fails_fails_its_trials_alone_and_the_next_start_tries_it_again(tmp_path):
    driver = Driver(tmp_path, space={"data.fold": {"grid": [1, 2]}} | STARTS, seeds=(0,))
    while (asked := asked_for(driver))[1] != Searcher.FINISHED:
        is_lost = asked[1] == "transfer of p001-seed0"
        driver.source.on_trial_complete(asked[0], {"val/clip_top1": 0.5}, error=is_lost)
    failed = {record.name: record.reason for record in driver.ledger.of_state("failed")}
    assert failed == dict.fromkeys(("p001-seed0", "p004-seed0"), "transfer/paper-seed0 failed: no clips")
    again = Driver(tmp_path, space={"data.fold": {"grid": [1, 2]}} | STARTS, seeds=(0,))
    trial_id, given = asked_for(again)
    assert given == "transfer of p001-seed0"
    again.run(trial_id)
    assert again.run_all() == ["p001-seed0", "p004-seed0"]


def test_a_search_that_was_killed_during_a_transfer_resumes_with_it(tmp_path):
    killed = Driver(tmp_path, space=STARTS, seeds=(0,))
    killed.run_all(most=1)
    assert asked_for(killed)[1] == "transfer of p001-seed0"
    resumed = Driver(tmp_path, space=STARTS, seeds=(0,))
    given = []
    while (asked := asked_for(resumed))[1] != Searcher.FINISHED:
        given.append(asked[1])
        resumed.run(asked[0])
    assert given == ["transfer of p001-seed0", "p001-seed0", "transfer of p002-seed0", "p002-seed0"]


def test_no_point_is_drawn_while_others_wait_for_their_transfer(tmp_path):
    space = DRAWN | {"weights": {"choice": {"paper": {"init_from": "transfer/paper"}}}}
    sampler = {"kind": "tpe", "num_points": 5}
    driver = Driver(tmp_path, space=space, sampler=sampler, seeds=(0,), max_concurrent=2)
    trial_id, given = asked_for(driver)
    assert (given, driver.ask()[1]) == ("transfer of p000-seed0", None)
    assert len(driver.ledger.records) == 1
    driver.run(trial_id)
    assert [asked_for(driver)[1] for _ in range(2)] == ["p000-seed0", "p001-seed0"]


POPULATION = {
    "space": {"optimizer.lr": {"loguniform": [0.001, 1.0]}, "label_smoothing": {"choice": [0.0, 0.1, 0.2]}},
    "sampler": {"kind": "random", "num_points": 8},
    "scheduler": {"kind": "pbt", "interval_epochs": 3},
    "max_concurrent": 3,
}


def rate(assignment):
    """The learning rate that a trial has now."""
    return json.loads(assignment["interval"])["settings"]["optimizer.lr"]


def test_after_every_interval_the_worst_of_a_seed_take_over_from_its_best(tmp_path):
    driver = Driver(tmp_path, **POPULATION)
    first = driver.run_all(most=16, value=rate)
    assert len(set(first)) == 16
    _, assignment = driver.ask()
    assert json.loads(assignment["interval"])["until_epoch"] == 6
    ranked = {
        seed: sorted((r for r in driver.ledger.records.values() if r.seed == seed), key=lambda r: r.scores[0])
        for seed in (0, 1)
    }
    assert len(driver.taken_over) == 4
    for name, donor in driver.taken_over:
        of_seed = [record.name for record in ranked[driver.ledger.records[name].seed]]
        assert name in of_seed[:2]
        assert donor in of_seed[-2:]
        record = driver.ledger.records[name]
        assert record.donors == (f"{donor}@3",)
        assert record.current != record.point
    kept = set(driver.ledger.records) - {name for name, _ in driver.taken_over}
    assert all(driver.ledger.records[name].changed is None for name in kept)


def test_a_population_finds_the_rate_at_which_it_does_well(tmp_path):
    driver = Driver(tmp_path, **POPULATION)
    driver.run_all(value=rate)
    before = [record.point.settings["optimizer.lr"] for record in driver.ledger.records.values()]
    after = [record.current.settings["optimizer.lr"] for record in driver.ledger.records.values()]
    assert sorted(after)[4] > 2 * sorted(before)[4]
    assert all(0.001 <= lr <= 1.0 for lr in after)
    assert {record.state for record in driver.ledger.records.values()} == {"ended"}


def test_a_population_that_is_interrupted_anywhere_comes_to_the_same_end(tmp_path):
    (tmp_path / "once").mkdir()
    (tmp_path / "cut").mkdir()
    assert len(Driver(tmp_path / "once", **POPULATION).run_all(value=rate)) == 16 * INTERVALS
    num_run, rounds = 0, 0
    while names := (cut := Driver(tmp_path / "cut", **POPULATION)).run_all(most=7, value=rate):
        num_run, rounds = num_run + len(names), rounds + 1
        cut.ask()  # is under way when the driver dies
    assert (num_run, rounds) == (16 * INTERVALS, 10)
    once, cut = (Ledger(tmp_path / each / "trials.jsonl").records for each in ("once", "cut"))
    assert once == cut


def test_a_population_waits_for_its_last_member_and_continues_without_a_lost_one(tmp_path):
    driver = Driver(tmp_path, **POPULATION | {"seeds": (0,)})
    driver.run_all(most=6, value=rate)
    (lost, _), (last, assignment) = driver.ask(), driver.ask()
    assert driver.ask()[1] is None
    driver.source.on_trial_complete(lost, {"val/clip_top1": 0.0}, error=True)
    assert driver.ask()[1] is None
    driver.run(last, rate(assignment))
    assert driver.ask()[1]["trial"] == "p000-seed0"
    assert len([record for record in driver.ledger.records.values() if record.state == "begun"]) == 7


def test_members_that_do_equally_well_keep_their_weights(tmp_path):
    driver = Driver(tmp_path, **POPULATION)
    driver.run_all()
    assert driver.taken_over == []
