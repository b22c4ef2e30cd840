"""Which runs are compared."""

import pytest


def test_a_search_is_its_trials(store):
    search = store._run({"stage": "search", "mlflow.runName": "depths"}, {})
    for seed in range(3):
        for epochs, point in enumerate(("one", "two")):
            store.train(seed=seed, tags={"mlflow.parentRunId": search, "point": point}, epochs=epochs)
    store.train(seed=0)
    assert sorted(row.label for row in store.compare(runs=("depths",)).rows) == ["one", "two"]


def test_where_there_is_nothing_to_compare_the_error_says_what_there_is(store):
    with pytest.raises(ValueError, match="has no train run that ended"):
        store.compare()
    with pytest.raises(ValueError, match=r"experiment .other. is not in .* there are: Default, t3d"):
        store.compare(experiment="other")
    store.train(seed=0)
    with pytest.raises(ValueError, match="no run has the metric val/map; there are: cost/worker_hours, model/gmacs"):
        store.compare(metric="val/map")
    with pytest.raises(ValueError, match="is called 'mine'"):
        store.compare(runs=("mine",))


def test_transfers_are_compared_by_their_probe_if_one_has_a_probe(store):
    """Pairs of 0.73 came with a probe of 0.14."""
    for pairs, (number, probe) in zip((0.60, 0.73), enumerate(({"probe/linear_top1": 0.3}, {})), strict=True):
        store.transfer(metrics={"check/pair_accuracy": pairs} | probe, epochs=number)
    comparison = store.compare(stage="transfer")
    assert (comparison.metric, [row.mean for row in comparison.rows]) == ("probe/linear_top1", [0.3])
    expected = "1 of 2 runs have no probe/linear_top1 and are not compared: give them a probe, or compare by --metric"
    assert any(note.startswith(expected) for note in comparison.notes)
    assert [row.mean for row in store.compare(stage="transfer", metric="check/pair_accuracy").rows] == [0.73, 0.60]


def test_transfers_without_a_probe_are_compared_by_pairs(store):
    store.transfer(metrics={"check/pair_accuracy": 0.6})
    assert store.compare(stage="transfer").metric == "check/pair_accuracy"
