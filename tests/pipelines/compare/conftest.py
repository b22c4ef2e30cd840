import numpy as np
import pytest

from pipelines.compare.config import CompareConfig
from pipelines.compare.job import run_compare
from tests.pipelines.compare.written_store import Store


@pytest.fixture
def store(tracking_uri, tmp_path):
    return Store(tmp_path, tracking_uri)


@pytest.fixture
def report(store, tmp_path):
    """A report on two networks that were tested on the same videos with three seeds."""
    rng = np.random.default_rng(0)
    for seed in range(3):
        right = rng.random(60) < 0.8
        for kind, correct, gmacs in (
            ("t3d_121", right, 100.0),
            ("densenet3d_121", right & (rng.random(60) < 0.7), 60.0),
        ):
            store.trained_and_tested(
                seed=seed,
                value=float(correct.mean()),
                correct=correct,
                metrics={"model/gmacs": gmacs},
                **{"model.kind": kind},
            )
    config = CompareConfig(table=4, tracking={"uri": store.uri}, output=tmp_path / "report")
    return run_compare(config), tmp_path / "report"
