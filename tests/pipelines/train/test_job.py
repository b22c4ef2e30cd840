"""What a person does with jobs/train.py beyond one plain run: folds, segments, frozen weights, the same name again."""

import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import mlflow
import pytest
import torch
from safetensors.torch import load_file

from pipelines.clips.config import ClipConfig
from pipelines.evaluate.config import EvaluateConfig, EvaluateDataConfig
from pipelines.evaluate.job import run_evaluate
from pipelines.train.config import TrainAugmentationConfig, TrainDataConfig
from pipelines.train.job import run_train
from pipelines.training.config import AdamWConfig, CheckpointConfig, ScalingConfig
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.training.weights_card import read_card
from tests.pipelines.damage import changed_videos

CLIP = ClipConfig(num_frames=16, frame_stride=1, crop_size=32)


def runs_of(tmp_path):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    return client.search_runs([client.get_experiment_by_name("t3d").experiment_id])


def test_a_run_that_has_ended_says_its_summary_again_and_does_nothing(config_of, tmp_path, monkeypatch):
    first = run_train(config_of(name="mine", register="motions"))
    monkeypatch.setattr("pipelines.training.run.train_here", lambda *_: pytest.fail("it trains again"))
    assert run_train(config_of(name="mine", register="motions")) == first
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert len(client.search_model_versions("name='motions'")) == 1


def test_a_run_at_work_is_refused_to_a_second_job(config_of, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    with (tmp_path / "runs" / "mine" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 1 on elsewhere")
        held.flush()
        with pytest.raises(ValueError, match=r"run 'mine' .* is being trained by process 1 on elsewhere"):
            run_train(config_of(name="mine"))


def test_a_run_is_resumed_in_this_process_or_on_workers(config_of, tmp_path):
    every = CheckpointConfig(every_steps=1, num_to_keep=9)
    config = config_of(name="mine", checkpoint=every)
    run_train(config)
    folder = tmp_path / "runs" / "mine"
    weights = load_file(folder / "model.safetensors")
    (folder / "summary.txt").unlink()
    newest = sorted(folder.glob("checkpoint_*"))[-1]
    (newest / "training_state.pt").write_bytes(b"damaged")
    run_train(config.model_copy(update={"scaling": ScalingConfig(num_workers=1)}))
    assert load_file(folder / "model.safetensors").keys() == weights.keys()
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_a_run_is_not_resumed_where_other_rows_can_be_read(config_of, synthetic_shards, tmp_path):
    """Its clips would come in another order, and of others."""
    shards = tmp_path / "shards of mine"
    shutil.copytree(synthetic_shards, shards)
    config = config_of(name="mine", data=TrainDataConfig(shards=(shards,)))
    run_train(config)
    (tmp_path / "runs" / "mine" / "summary.txt").unlink()
    lost = sorted((shards / "shards").glob("*.parquet"))[0]
    away = lost.rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"began with other rows \(train: 29 then, \d\d now, .*" + lost.name):
        run_train(config)
    away.rename(lost)
    run_train(config)
    described = tmp_path / "runs" / "mine" / "run.json"
    known = json.loads(described.read_text())
    del known["rows"]
    described.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="begun by an older version of this project: give another --name"):
        run_train(config)


def test_a_run_of_an_older_version_is_resumed_with_the_videos_that_its_seed_held_out(
    config_of, synthetic_shards, tmp_path
):
    shards = shutil.copytree(synthetic_shards, tmp_path / "copy", ignore=shutil.ignore_patterns("features"))
    with changed_videos(shards) as videos:
        for video in videos:
            video["splits"] = ["train"]
    data = TrainDataConfig(shards=(shards,), holdout_fraction=0.3, holdout_seed=3)
    run_train(config_of(name="mine", data=data, seed=3))
    described = tmp_path / "runs" / "mine" / "run.json"
    known = json.loads(described.read_text())
    del known["lineage"]
    described.write_text(json.dumps(known))
    now = config_of(name="mine", data=data.model_copy(update={"holdout_seed": 0}), seed=3)
    with pytest.raises(ValueError, match=r"began with other rows .*: --data.holdout_seed 3 holds out those"):
        run_train(now)
    assert "top-1" in run_train(config_of(name="mine", data=data, seed=3))


def test_a_run_that_was_killed_before_its_id_was_kept_is_one_in_mlflow(config_of, tmp_path, monkeypatch):
    """Also where it had told its settings, and starts again with others."""
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.runtime.named_folder.whole_file", Mock(side_effect=SystemExit("killed")))
        (tmp_path / "runs" / "mine").mkdir(parents=True)
        (tmp_path / "runs" / "mine" / ".mark").write_text("0123")
        with pytest.raises(SystemExit):
            run_train(config_of(name="mine", seed=7))
    (begun,) = runs_of(tmp_path)
    assert begun.data.params["seed"] == "7"
    assert not (tmp_path / "runs" / "mine" / "run.json").exists()
    config = config_of(name="mine")
    run_train(config)
    shutil.rmtree(tmp_path / "runs" / "mine")
    run_train(config)
    found = [(run.info.run_name, run.info.status) for run in runs_of(tmp_path)]
    assert found == [("mine", "FINISHED")] * 2, "one of the run that was deleted, one of the new one"


def test_weights_of_another_fold_of_the_same_videos_are_refused_in_training_and_testing(config_of, trained, tmp_path):
    """The synthetic data set has one fold: another one stands in the card."""
    weights = Path(shutil.copy(trained / "model.safetensors", tmp_path))
    card = read_card(weights)
    [step] = card.lineage
    assert (step.datasets, step.fold, step.is_labelled, step.run_id) == (("synthetic",), 1, True, card.run_id)
    loaded = load_model(weights)
    save_weights(loaded.model, weights, card=replace(card, lineage=(replace(step, fold=2),)))
    message = r"was trained on fold 2 of synthetic, and with it on test videos of fold 1: take fold 2"
    with pytest.raises(ValueError, match=message):
        run_train(config_of(name="other", init_from=str(weights)))
    data = EvaluateDataConfig(shards=config_of().data.shards)
    with pytest.raises(ValueError, match=message):
        run_evaluate(EvaluateConfig(data=data, checkpoint=str(weights), output=tmp_path / "out"))
    save_weights(loaded.model, weights, card=replace(card, lineage=(replace(step, fold=2, datasets=("another",)),)))
    run_train(config_of(name="other", init_from=str(weights)))


def test_segments_of_a_video_are_one_example_and_the_card_says_so(config_of, trained, tmp_path):
    clip = CLIP.model_copy(update={"num_segments": 2})
    augmentation = TrainAugmentationConfig(mixup_alpha=0.4, cutmix_alpha=1.0, brightness=0.2, crop="random_resized")
    config = config_of(
        name="tsn",
        clip=clip,
        init_from=str(trained),
        freeze_backbone=True,
        augmentation=augmentation,
        label_smoothing=0.1,
    )
    run_train(config)
    assert read_card(tmp_path / "runs" / "tsn" / "model.safetensors").num_segments == 2
    before, after = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "runs" / "tsn"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


def test_the_head_learns_alone_in_the_first_epochs_also_of_a_run_that_was_interrupted(config_of, trained, tmp_path):
    every = CheckpointConfig(every_steps=1, num_to_keep=99)
    optimizer = AdamWConfig(head_lr_scale=10.0, layer_decay=0.5, decay_norms_and_biases=False)
    config = config_of(
        name="whole", init_from=str(trained), epochs=3, freeze_backbone_epochs=1, checkpoint=every, optimizer=optimizer
    )
    run_train(config)
    num_frozen_steps = 4  # 29 rows in steps of 8: the fifth step is the first that begins in the second epoch
    before = load_file(trained / "model.safetensors")
    for step in (1, num_frozen_steps, num_frozen_steps + 1):
        after = load_file(tmp_path / "runs" / "whole" / f"checkpoint_{step:08d}" / "model.safetensors")
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        is_frozen = moved == {"classifier.weight", "classifier.bias"}
        assert is_frozen == (step <= num_frozen_steps)
    assert {name.rpartition(".")[2] for name in moved} >= {"weight", "bias", "running_mean", "running_var"}
    for last in (2, num_frozen_steps, num_frozen_steps + 2):
        name = f"interrupted_{last}"
        shutil.copytree(tmp_path / "runs" / "whole", tmp_path / "runs" / name)
        for made_later in ("summary.txt", "model.safetensors", "metrics.jsonl"):
            (tmp_path / "runs" / name / made_later).unlink()
        for folder in sorted((tmp_path / "runs" / name).glob("checkpoint_*"))[last:]:
            shutil.rmtree(folder)
        run_train(config.model_copy(update={"name": name}))
        whole, resumed = (load_file(tmp_path / "runs" / run / "model.safetensors") for run in ("whole", name))
        assert all(torch.equal(whole[tensor], resumed[tensor]) for tensor in whole)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_statistics_are_measured_on_the_new_clips_once_before_the_head_learns_alone(
    config_of, trained, tmp_path, ema_decay
):
    config = config_of(
        name="measured",
        init_from=str(trained),
        epochs=3,
        freeze_backbone_epochs=2,
        precise_bn_steps=2,
        ema_decay=ema_decay,
        checkpoint=CheckpointConfig(every_steps=1, num_to_keep=99),
    )
    run_train(config)
    before = load_file(trained / "model.safetensors")
    first, last_frozen, after = (
        load_file(tmp_path / "runs" / "measured" / f"checkpoint_{step:08d}" / "model.safetensors") for step in (1, 8, 9)
    )
    statistics = {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert {name for name in before if not torch.equal(before[name], first[name])} == {
        *statistics,
        "classifier.weight",
        "classifier.bias",
    }
    # In the average of weights too: the network that learns has them, or the average would move away.
    assert all(torch.allclose(first[name], last_frozen[name]) for name in statistics)
    assert not any(torch.equal(last_frozen[name], after[name]) for name in statistics)


def test_a_distance_in_seconds_gives_the_weights_of_that_stride_and_goes_with_them(config_of, trained, tmp_path):
    clip = ClipConfig(num_frames=16, frame_stride=None, seconds_per_frame=0.04, crop_size=32)  # of 25 frames a second
    run_train(config_of(name="seconds", clip=clip))
    weights = tmp_path / "runs" / "seconds" / "model.safetensors"
    by_stride, by_seconds = load_file(trained / "model.safetensors"), load_file(weights)
    assert all(torch.equal(by_stride[name], by_seconds[name]) for name in by_stride)
    card = read_card(weights)
    assert (card.frame_stride, card.seconds_per_frame, card.clip_view().stride_at(50.0)) == (None, 0.04, 2)
    run_train(config_of(name="next", init_from=str(weights), model=None, clip=None))
    assert read_card(tmp_path / "runs" / "next" / "model.safetensors").seconds_per_frame == 0.04
    data, tracking = EvaluateDataConfig(shards=config_of().data.shards), config_of().tracking
    tested = {
        name: EvaluateConfig(data=data, checkpoint=str(path), output=tmp_path / name, tracking=tracking)
        for name, path in {"stride": trained, "seconds": weights}.items()
    }
    lines = {name: run_evaluate(config).splitlines()[:2] for name, config in tested.items()}
    assert lines["seconds"][0] == lines["stride"][0]
    assert "32 px at 0.04 s a frame" in lines["seconds"][1]
    assert "32 px at stride 1" in lines["stride"][1]


def test_each_fold_is_a_run_of_its_own_from_the_weights_of_that_fold(config_of, trained, tmp_path, capsys):
    """The synthetic data set has one fold; the third one is only looked for."""
    shutil.copytree(trained, tmp_path / "runs" / "base-fold1")
    weights = str(tmp_path / "runs" / "base-fold{fold}")
    config = config_of(name="all", folds=(1,), init_from=weights, register="motions-{fold}")
    summary = run_train(config)
    assert "fold 1" in capsys.readouterr().out
    assert f"--folds 1 --checkpoint '{tmp_path}/runs/all-fold{{fold}}'" in summary
    assert (tmp_path / "runs" / "all-fold1" / "model.safetensors").is_file()
    assert "base-fold1" in (tmp_path / "runs" / "all-fold1" / "recipe.yaml").read_text()
    with pytest.raises(ValueError, match=r"data.fold 3 does not exist"):
        run_train(config_of(name="other", folds=(1, 3)))
    with pytest.raises(ValueError, match=r"gone-fold1 does not exist"):
        run_train(config_of(name="other", folds=(1,), init_from=str(tmp_path / "gone-fold{fold}")))
    assert not (tmp_path / "runs" / "other-fold1").exists()


def test_curves_of_a_run_are_in_its_folder_and_in_mlflow(config_of, tmp_path):
    run_train(config_of(name="mine", epochs=2))
    lines = [json.loads(line) for line in (tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()]
    (run,) = runs_of(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("train/loss", "val/clip_top1", "lr", "train/gradient_norm"):
        in_file = {(line["step"], line["metrics"][name]) for line in lines if name in line["metrics"]}
        assert {(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)} == in_file
        assert in_file


def test_a_virtual_epoch_validates_and_counts_more_often(config_of, tmp_path):
    run_train(config_of(name="virtual", epochs=4, epoch_share=0.5))
    logged = [json.loads(line) for line in (tmp_path / "runs" / "virtual" / "metrics.jsonl").read_text().splitlines()]
    validated = [line["step"] for line in logged if "val/loss" in line["metrics"]]
    epochs = [line["metrics"]["epoch"] for line in logged if "epoch" in line["metrics"]]
    assert len(validated) == 5  # one before the first step
    assert 3.2 < epochs[-1] <= 4
