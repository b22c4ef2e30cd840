"""What is drawn of a comparison."""

from pipelines.compare.plots import pareto_front


def test_the_pareto_front_is_what_nothing_beats_in_both(store):
    for value, gmacs in ((0.5, 1.0), (0.4, 2.0), (0.7, 3.0), (0.7, 4.0)):
        store.train(seed=0, value=value, epochs=int(gmacs), metrics={"model/gmacs": gmacs})
    rows = store.compare(group_by=("epochs",)).rows
    assert [row.label for row in pareto_front(rows, is_more_better=True)] == ["epochs=1", "epochs=3"]
