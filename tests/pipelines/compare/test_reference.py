"""Which row the others are compared with."""

import pytest

KINDS = {"t3d_121": 0.5, "c3d": 0.9, "densenet3d_121": 0.7}


@pytest.fixture
def ids(store):
    """Ids of three runs, of which neither the first nor the baseline is the best."""
    tags = {kind: {"mlflow.runName": f"my {kind}"} for kind in KINDS}
    return {
        kind: store.train(seed=0, value=value, tags=tags[kind], **{"model.kind": kind}) for kind, value in KINDS.items()
    }


def test_by_default_it_is_the_row_whose_runs_were_made_first(store, ids):
    comparison = store.compare()
    assert comparison.rows[0].label == "kind=c3d"
    assert comparison.reference == ("kind=t3d_121", "the first row in the order in which runs were named, or else made")


def test_runs_that_are_named_come_in_the_order_of_their_names(store, ids):
    assert store.compare(runs=("my densenet3d_121", "my t3d_121")).reference.label == "kind=densenet3d_121"


def test_rows_that_share_a_label_keep_the_order_of_their_runs(store):
    for size, kind in ((48, "t3d_121"), (48, "c3d"), (64, "t3d_121"), (64, "c3d")):
        store.train(seed=0, value=size, tags={"point": kind}, **{"clip.crop_size": size, "model.kind": kind})
    assert store.compare().reference.label == "t3d_121, crop_size=48"


def test_a_table_of_the_paper_has_its_baseline(store, ids):
    assert store.compare(table=4).reference == ("DenseNet3D", "the baseline of the paper's table")
    without = store.compare(table=4, runs=("my t3d_121", "my c3d")).reference
    assert without == ("T3D", "the first row in the order in which runs were named, or else made")


@pytest.mark.parametrize("named", ["kind=c3d", "my c3d", "id"])
def test_it_can_be_named_by_its_label_or_one_of_its_runs(store, ids, named):
    comparison = store.compare(reference=ids["c3d"] if named == "id" else named)
    assert comparison.reference == ("kind=c3d", "the reference that was named")


def test_a_name_that_no_row_has_is_refused_with_the_names_there_are(store, ids):
    expected = (
        "reference 'T3D': no row, and no run of a row, is called so: give one of the rows 'kind=t3d_121'; 'kind=c3d'"
    )
    with pytest.raises(ValueError, match=expected):
        store.compare(reference="T3D")


def test_a_name_of_runs_in_several_rows_is_refused(store):
    for epochs in (1, 2):
        store.train(seed=0, epochs=epochs, tags={"mlflow.runName": "mine"})
    with pytest.raises(
        ValueError, match="runs of several rows are called so: give one of the rows 'epochs=1'; 'epochs=2'"
    ):
        store.compare(reference="mine")
