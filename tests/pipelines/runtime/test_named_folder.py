"""A named folder: begun, resumed with its MLflow run, and refused to other settings."""

import json

import pytest
from mlflow import MlflowClient

from pipelines.runtime.named_folder import NamedFolder
from pipelines.settings.section import Section
from pipelines.tracking.config import TrackingConfig

pytestmark = pytest.mark.heavy


class Settings(Section):
    """Of a job."""

    lr: float = 0.1
    """A setting."""


def start(folder, tracking, **added):
    with folder.exclusive():
        known = folder.known(when_changed="made with other settings")
        with folder.open_run(Settings(), tracking, known=known, stage="train", tags={"more": "yes"}) as run:
            if known is None:
                folder.record(Settings(), run, **added)
    return known, run


@pytest.fixture
def tracking(tmp_path):
    return TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_a_second_start_resumes_the_mlflow_run_of_the_first(tmp_path, tracking):
    folder = NamedFolder(tmp_path / "mine", "run", "0123")
    nothing, first = start(folder, tracking, rows=3)
    known, second = start(folder, tracking)
    assert nothing is None
    assert known == {"fingerprint": "0123", "mlflow_run_id": first.run_id, "rows": 3}
    assert json.loads((folder.path / "run.json").read_text()) == known
    assert second == first
    assert (folder.path / "recipe.yaml").read_text() == "lr: 0.1\n"


def test_the_mlflow_run_has_the_settings_the_recipe_and_the_tags_of_its_job(tmp_path, tracking):
    _, run = start(NamedFolder(tmp_path / "mine", "run", "0123"), tracking)
    client = MlflowClient(run.tracking_uri)
    found = client.get_run(run.run_id)
    assert (found.info.run_name, found.info.status) == ("mine", "FINISHED")
    assert found.data.params == {"lr": "0.1"}
    assert found.data.tags.items() >= {"stage": "train", "more": "yes"}.items()
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["recipe.yaml"]


def test_a_run_that_was_killed_before_its_record_leaves_no_second_mlflow_run(tmp_path, tracking):
    folder = NamedFolder(tmp_path / "mine", "run", "0123")

    def begin():
        with folder.open_run(Settings(), tracking, known=None, stage="train"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    _, run = start(folder, tracking)
    client = MlflowClient(run.tracking_uri)
    experiment = client.get_experiment_by_name("t3d").experiment_id
    assert [each.info.run_id for each in client.search_runs([experiment])] == [run.run_id]


def test_other_settings_and_a_second_process_are_refused(tmp_path, tracking):
    start(NamedFolder(tmp_path / "mine", "search", "0123"), tracking)
    other = NamedFolder(tmp_path / "mine", "search", "4567")
    expected = r"search 'mine' in .* was made with other settings \(fingerprint 0123, now 4567; .* give another --name"
    with pytest.raises(ValueError, match=expected):
        start(other, tracking)
    with (
        other.exclusive(),
        pytest.raises(ValueError, match=r"search 'mine' in .* is being run by process \d+ on .*another --name"),
        other.exclusive(),
    ):
        pass
