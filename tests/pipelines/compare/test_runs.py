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
