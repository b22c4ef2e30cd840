"""Chains of runs whose weights saw test videos: refused, or reported wherever their results are."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.compare.config import CompareConfig
from pipelines.compare.job import run_compare
from pipelines.evaluate.config import EvaluateConfig, EvaluateDataConfig
from pipelines.evaluate.job import run_evaluate
from pipelines.prepare.config import FolderDatasetConfig, PrepareConfig
from pipelines.prepare.make import prepare
from pipelines.search.config import SearchConfig
from pipelines.search.job import run_search
from pipelines.settings.recipe import to_yaml
from pipelines.train.job import run_train
from pipelines.transfer.job import run_transfer
from t3d_core.training.weights_card import read_card
from tests.pipelines.damage import changed_videos
from tests.pipelines.training.small_runs import settings_in, train_config, transfer_config

pytestmark = pytest.mark.heavy
TEST_OF_FOLD_2 = {"train": "test", "val": "val", "test": "train"}


@pytest.fixture
def settings(synthetic_shards, tracking_uri, tmp_path):
    return settings_in(tmp_path)


@pytest.fixture
def copy_as(synthetic_shards, tmp_path):
    """Gives the shards under another name, with a second fold that tests what the first one trains on."""

    def copy(dataset):
        shards = shutil.copytree(synthetic_shards, tmp_path / dataset, ignore=shutil.ignore_patterns("features"))
        with changed_videos(shards) as videos:
            for video in videos:
                video["splits"] = [video["splits"][0], TEST_OF_FOLD_2[video["splits"][0]]]
                if dataset != "synthetic":
                    video["video_id"] = f"of {dataset} {video['video_id'].replace('/', ' ')}"
        description = json.loads((shards / "dataset.json").read_text())
        (shards / "dataset.json").write_text(json.dumps(description | {"num_folds": 2, "dataset": dataset}))
        return shards

    return copy


def evaluate_config(shards, tmp_path, checkpoint, **changes):
    return EvaluateConfig(
        data=EvaluateDataConfig(shards=(shards,), **changes),
        checkpoint=str(checkpoint),
        output=tmp_path / "test",
        num_workers=0,
        tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        storage=tmp_path / "runs",
    )


def test_test_videos_that_any_run_of_the_chain_trained_on_are_refused_with_the_chain(settings, copy_as, tmp_path):
    first, second = copy_as("synthetic"), copy_as("another")
    run_train(train_config(settings, first, name="one"))
    one, two = (str(tmp_path / "runs" / name) for name in ("one", "two"))
    run_train(train_config(settings, second, name="two", init_from=one))
    chain = (
        r"was trained on fold 1 of synthetic, and with it on test videos of fold 2: .*"
        r"1\. train on synthetic \w{12}, fold 1, split train, with labels, run \w{32} -> "
        r"2\. train on another \w{12}, fold 1"
    )
    data = {"shards": (first,), "fold": 2}
    with pytest.raises(ValueError, match=chain):
        run_train(train_config(settings, first, name="three", init_from=two, data=data))
    with pytest.raises(ValueError, match=chain):
        run_evaluate(evaluate_config(first, tmp_path, two, fold=2))
    base = Path(tmp_path / "base.yaml")
    base.write_text(to_yaml(train_config(settings, first, init_from=two, data=data)))
    search = SearchConfig(
        base=base, space={"optimizer.lr": {"grid": [0.1]}}, storage=tmp_path / "runs", tracking=settings["tracking"]
    )
    with pytest.raises(ValueError, match=chain):
        run_search(search)


def test_test_videos_that_were_seen_without_labels_are_reported_wherever_the_results_are(
    settings, synthetic_shards, synthetic_config, tmp_path, capsys
):
    videos = synthetic_config.dataset.root or synthetic_shards / "videos"
    unlabelled = tmp_path / "all of it"
    dataset = FolderDatasetConfig(root=str(videos), is_labelled=False)
    prepare(PrepareConfig(dataset=dataset, videos_per_shard=10), unlabelled)
    run_transfer(transfer_config(settings, unlabelled, name="teach"))
    student = tmp_path / "runs" / "teach"
    warning = "the weights have seen videos of the test of synthetic, fold 1, before: transfer on videos"
    summary = run_train(train_config(settings, synthetic_shards, name="tune", init_from=str(student)))
    assert warning in summary
    assert f"WARNING: {warning}" in capsys.readouterr().out
    run = tmp_path / "runs" / "tune"
    assert [step.stage for step in read_card(run / "model.safetensors").lineage] == ["transfer", "train"]
    summary = run_evaluate(evaluate_config(synthetic_shards, tmp_path, run))
    assert warning in summary
    assert f"WARNING: {warning}" in capsys.readouterr().out
    output = tmp_path / "comparison"
    table = run_compare(CompareConfig(tracking=settings["tracking"], output=output, storage=tmp_path / "runs"))
    assert f"note: WARNING, all runs: {warning}" in table
    assert "seen before" in table
    assert all(warning in (output / name).read_text() for name in ("table.md", "comparison.html"))
    assert (output / "table.csv").read_text().splitlines()[0].count("seen before") == 1


def test_a_twin_keeps_its_chain_in_the_record_of_its_run(settings, synthetic_shards, tmp_path):
    run_transfer(transfer_config(settings, synthetic_shards, name="twin", objective="frame_regression"))
    twin = str(tmp_path / "runs" / "twin" / "twin.pt")
    run_train(train_config(settings, synthetic_shards, name="tune", inflate_from=twin))
    card = read_card(tmp_path / "runs" / "tune" / "model.safetensors")
    assert [(step.stage, step.is_labelled) for step in card.lineage] == [("transfer", False), ("train", True)]
