"""Weights go into the store and are found by every form of address."""

import shutil

import pytest
from mlflow import MlflowClient

from pipelines.tracking.models import fetch_weights, log_model, register_model
from pipelines.train.job import locate_weights
from tests.pipelines.tracking.new_runs import write_weights


def test_every_form_of_address_finds_the_weights_logged_last(run, weights_path, tmp_path):
    older = write_weights(tmp_path / "model.safetensors", class_names=("x",))
    log_model(run, older)
    model_uri = log_model(run, weights_path)
    with_alias = register_model(run, model_uri, name="t3d-ucf", alias="champion")
    with_version = register_model(run, model_uri, name="t3d-ucf", alias=None)
    assert (with_alias, with_version) == ("models:/t3d-ucf@champion", "models:/t3d-ucf/2")
    for uri in (f"runs:/{run.run_id}", f"runs:/{run.run_id}/model", with_alias, with_version, model_uri):
        assert fetch_weights(uri, tracking_uri=run.tracking_uri).read_bytes() == weights_path.read_bytes(), uri


def test_weights_in_a_folder_of_any_name_become_a_model(run, weights_path, tmp_path):
    folder = tmp_path / "a?b#c%20d \u00e4"
    folder.mkdir()
    model_uri = log_model(run, shutil.copy(weights_path, folder / "model.safetensors"))
    assert fetch_weights(model_uri, tracking_uri=run.tracking_uri).read_bytes() == weights_path.read_bytes()


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a b", "\u00e4"])
def test_models_of_any_name_are_found_again(run, weights_path, name):
    for alias in ("best", None):
        uri = register_model(run, log_model(run, weights_path), name=name, alias=alias)
        assert fetch_weights(uri, tracking_uri=run.tracking_uri).read_bytes() == weights_path.read_bytes()


def test_a_new_version_takes_the_alias_over(run, weights_path):
    for version in (1, 2):
        register_model(run, log_model(run, weights_path), name="t3d-ucf", alias="champion")
        client = MlflowClient(run.tracking_uri, registry_uri=run.tracking_uri)
        assert int(client.get_model_version_by_alias("t3d-ucf", "champion").version) == version


def test_weights_logged_as_a_file_of_the_run_are_found(run, weights_path, tmp_path):
    student = shutil.copy(weights_path, tmp_path / "student.safetensors")
    run.log_artifact(student)
    run.log_text("a: 1", "recipe.yaml")
    for uri in (f"runs:/{run.run_id}", f"runs:/{run.run_id}/student.safetensors"):
        assert fetch_weights(uri, tracking_uri=run.tracking_uri).read_bytes() == weights_path.read_bytes()


def test_weights_are_located_by_path_or_by_address(run, weights_path):
    run.log_artifact(weights_path)
    assert locate_weights(str(weights_path.parent), tracking_uri=run.tracking_uri) == weights_path
    for where in (f"runs:/{run.run_id}", run.run_id):
        found = locate_weights(where, tracking_uri=run.tracking_uri)
        assert found.read_bytes() == weights_path.read_bytes()


@pytest.mark.parametrize(
    "uri", ["runs:/" + "0" * 32, "models:/nobody@champion", "models:/nobody/1", "models:/m-" + "0" * 32]
)
def test_an_address_that_the_store_does_not_know_is_named_in_the_error(uri, tracking_uri):
    with pytest.raises(ValueError, match=uri):
        fetch_weights(uri, tracking_uri=tracking_uri)


def test_a_run_without_weights_or_with_two_is_refused(run, weights_path, tmp_path):
    uri = f"runs:/{run.run_id}"
    with pytest.raises(ValueError, match=uri):
        fetch_weights(uri, tracking_uri=run.tracking_uri)
    run.log_artifact(weights_path)
    run.log_artifact(shutil.copy(weights_path, tmp_path / "student.safetensors"))
    with pytest.raises(ValueError, match=r"found model\.safetensors, student\.safetensors"):
        fetch_weights(uri, tracking_uri=run.tracking_uri)


def test_a_network_without_classes_is_not_logged_as_a_classifier(run, tmp_path):
    headless = write_weights(tmp_path / "student.safetensors", class_names=())
    with pytest.raises(ValueError, match="has no classes"):
        log_model(run, headless)
