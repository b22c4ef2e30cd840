"""Transfer, train and evaluate on small synthetic shards, in this process; three cases with real workers."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from safetensors.torch import load_file

from pipelines.evaluate.config import EvaluateConfig, EvaluateDataConfig
from pipelines.evaluate.job import run_evaluate
from pipelines.networks.config import C3DConfig, T3DConfig
from pipelines.train.job import run_train
from pipelines.training.config import (
    CheckpointConfig,
    OptimizerConfig,
    TrainComputeConfig,
)
from pipelines.transfer.job import run_transfer
from tests.pipelines.training.small_runs import logged, train_config, transfer_config

GOLDEN = Path(__file__).parents[2] / "golden" / "transfer_quickstart_losses.json"
MODEL = T3DConfig(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)


def test_transfer_then_train_then_evaluate_leave_what_the_jobs_promise(settings, synthetic_shards, tmp_path):
    summary = run_transfer(transfer_config(settings, synthetic_shards, name="teach"))
    student = tmp_path / "runs" / "teach" / "student.safetensors"
    assert f"--init_from {student}" in summary
    summary = run_train(
        train_config(
            settings, synthetic_shards, name="tune", model=None, clip=None, init_from=str(student),
            register="motions", alias="champion",
        )
    )  # fmt: skip
    assert "models:/motions@champion" in summary
    for number, checkpoint in enumerate([str(tmp_path / "runs" / "tune"), "models:/motions@champion"]):
        output = tmp_path / f"eval{number}"
        run_evaluate(
            EvaluateConfig(
                checkpoint=checkpoint,
                data=EvaluateDataConfig(shards=(synthetic_shards,)),
                output=output,
                tracking=settings["tracking"],
                storage=settings["storage"],
            )
        )
        metrics = json.loads((output / "metrics.json").read_text())
        scores = pq.read_table(output / "scores.parquet").to_pylist()
        assert metrics["coverage"] == 1.0
        assert metrics["num_videos"] == len(scores) == metrics["num_listed"]
        hits = [row["label"] == row["predicted"] for row in scores]
        assert metrics["video_top1"] == pytest.approx(np.mean(hits))
        assert all(sum(row["scores"]) == pytest.approx(1, abs=1e-5) for row in scores)
    _, runs = logged(tmp_path)
    assert [run.data.tags["stage"] for run in runs] == ["transfer", "train", "evaluate", "evaluate"]
    assert all(run.info.status == "FINISHED" for run in runs)
    trained = runs[1]
    assert trained.data.params["optimizer.lr"] == "0.05"
    assert trained.data.params["model.kind"] == "t3d"
    description = json.loads((synthetic_shards / "dataset.json").read_text())
    assert description["fingerprint"].startswith(trained.inputs.dataset_inputs[0].dataset.digest)
    assert {"val/clip_top1", "train/loss", "throughput/clips_per_second", "throughput/data_wait_share"} <= set(
        trained.data.metrics
    )


def test_the_transfer_starts_the_classifier_from_the_student(settings, synthetic_shards, taught, tmp_path):
    student = taught / "student.safetensors"
    frozen = OptimizerConfig(lr=1e-12, weight_decay=0)
    run_train(train_config(settings, synthetic_shards, name="tune", init_from=str(student), optimizer=frozen))
    tuned = load_file(tmp_path / "runs" / "tune" / "model.safetensors")
    for name, tensor in load_file(student).items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(tensor, tuned[name], atol=1e-6), name


def test_a_run_interrupted_at_any_checkpoint_ends_with_the_same_weights(settings, synthetic_shards, tmp_path, capsys):
    """The third checkpoint of the whole run is the one that the interrupted run resumes from."""
    every = CheckpointConfig(every_steps=1, num_to_keep=9)
    config = train_config(settings, synthetic_shards, epochs=2, checkpoint=every, name="whole")
    run_train(config)
    whole = tmp_path / "runs" / "whole"
    cut = config.model_copy(update={"name": "cut"})
    run_train(cut)
    folder = tmp_path / "runs" / "cut"
    assert f"run:     {folder}" in capsys.readouterr().out.splitlines()
    (folder / "model.safetensors").unlink()
    for later in sorted(folder.glob("checkpoint_*"))[3:]:
        for file in later.iterdir():
            file.unlink()
        later.rmdir()
    run_train(cut)
    assert f"run:     {folder} (resumes after checkpoint_00000003)" in capsys.readouterr().out.splitlines()
    expected, ended = load_file(whole / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(expected[name], ended[name]) for name in expected)
    _, runs = logged(tmp_path)
    assert len(runs) == 2, "the run that went on is the same MLflow run"


def test_a_name_cannot_be_reused_with_other_settings(shared_settings, synthetic_shards, trained):
    with pytest.raises(ValueError, match=r"run 'mine' .* was made with other settings .* give another --name"):
        run_train(train_config(shared_settings, synthetic_shards, name=trained.name, optimizer=OptimizerConfig(lr=0.2)))


def test_a_student_has_no_classes_to_evaluate(synthetic_shards, taught):
    config = EvaluateConfig(checkpoint=str(taught), data=EvaluateDataConfig(shards=(synthetic_shards,)))
    with pytest.raises(ValueError, match="has no classes"):
        run_evaluate(config)


def test_the_losses_of_the_transfer_are_the_golden_ones(settings, synthetic_shards, tmp_path, request):
    """A refactor shows the same losses. `pytest --refresh-golden` writes them anew: say why in the commit."""
    run_transfer(transfer_config(settings, synthetic_shards, name="golden", epochs=3))
    client, (run,) = logged(tmp_path)
    losses = [point.value for point in client.get_metric_history(run.info.run_id, "train/loss")]
    if request.config.getoption("--refresh-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps([round(loss, 6) for loss in losses]) + "\n")
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=2e-3)


def test_a_run_that_recomputes_its_layers_ends_with_the_same_weights(settings, synthetic_shards, trained, tmp_path):
    compute = TrainComputeConfig(recompute=True)
    run_train(train_config(settings, synthetic_shards, name="saving", compute=compute))
    plain, saving = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "runs" / "saving"))
    for name, tensor in plain.items():
        torch.testing.assert_close(saving[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_batch_on_which_a_network_cannot_train_is_refused_before_the_run(settings, synthetic_shards, tmp_path):
    config = train_config(settings, synthetic_shards, name="mine", model=C3DConfig(), global_batch_size=1)
    with pytest.raises(ValueError, match=r"c3d cannot train on 1 clip of 16 x 32 x 32 in each worker"):
        run_train(config)
    assert not (tmp_path / "runs" / "mine").exists()


def test_weights_of_a_net_that_computes_something_else_are_told(settings, synthetic_shards, trained, capsys):
    model = MODEL.model_copy(update={"pool_time": (True, True, False)})
    run_train(train_config(settings, synthetic_shards, name="other", model=model, init_from=str(trained)))
    assert "network of init_from / of this run: pool_time None / (True, True, False)" in capsys.readouterr().out


def test_a_network_starts_from_inflated_2d_weights(settings, synthetic_shards, tmp_path, capsys):
    torch.manual_seed(0)
    densenet = torchvision.models.DenseNet(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)
    torch.save(densenet.state_dict(), tmp_path / "densenet.pt")
    slow = OptimizerConfig(lr=0.005)  # it stays near to where it starts
    config = train_config(settings, synthetic_shards, name="mine", inflate_from=str(tmp_path / "densenet.pt"))
    run_train(config.model_copy(update={"optimizer": slow}))
    assert "inflated" in capsys.readouterr().out
    initial = load_file(tmp_path / "runs" / "mine" / "initial.safetensors")
    torch.testing.assert_close(initial["features.conv0.weight"].sum(dim=2), densenet.features.conv0.weight)
    trained = load_file(tmp_path / "runs" / "mine" / "model.safetensors")
    drift = (trained["features.conv0.weight"] - initial["features.conv0.weight"]).norm()
    assert 0 < drift < 0.3 * initial["features.conv0.weight"].norm()


def test_2d_weights_of_another_network_are_refused_before_the_run(settings, synthetic_shards, tmp_path):
    torch.save(
        torchvision.models.DenseNet(growth_rate=6, block_config=(2, 2, 2, 2)).state_dict(), tmp_path / "other.pt"
    )
    with pytest.raises(ValueError, match=r"they belong to another network"):
        run_train(train_config(settings, synthetic_shards, name="mine", inflate_from=str(tmp_path / "other.pt")))
    assert not (tmp_path / "runs" / "mine").exists()


def test_a_failed_run_is_failed_in_mlflow(settings, synthetic_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pipelines.training.workers.run_training_loop", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        run_train(train_config(settings, synthetic_shards, name="mine"))
    _, (run,) = logged(tmp_path)
    assert run.info.status == "FAILED"
