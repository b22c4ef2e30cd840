"""Transfer runs: what they check before any work, what they report, and how they resume."""

import json
import re
import shutil
from types import SimpleNamespace

import mlflow
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pipelines.networks.weights import card_of
from pipelines.shards.index import load_index
from pipelines.tracking.metric_log import read_curves
from pipelines.train.config import TrainConfig
from pipelines.train.job import run_train
from pipelines.transfer.job import _plot_checks, run_transfer
from pipelines.transfer.stage import CorrespondenceStage, teacher_of
from pipelines.transfer.teacher_pass import _fingerprint
from t3d_core.models import build_model
from tests.pipelines.damage import changed_videos
from tests.pipelines.transfer.small_runs import transfer_config

MODEL = {"kind": "t3d", "growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 24, "bn_size": 2}


def test_a_teacher_that_gives_no_numbers_is_refused_before_the_shards_are_looked_at(exported, tmp_path):
    with pytest.raises(ValueError, match=r"^teacher \S+own\.pt2 gives features that are not finite"):
        run_transfer(transfer_config(exported(scale=float("nan")), tmp_path))
    with pytest.raises(ValueError, match="no_shards"):
        run_transfer(transfer_config(exported(scale=1.0), tmp_path))


def test_features_are_computed_once_for_all_runs_with_the_same_teacher_and_views(small_run, exported, tmp_path, capsys):
    for name, seed in (("first", 0), ("second", 1)):
        run_transfer(small_run(name=name, seed=seed, cache={"num_views": 2}))
        assert ("teacher features: 58 views" in capsys.readouterr().out) == (name == "first")
    [kind] = (tmp_path / "copy" / "features").iterdir()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    second, first = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    for run in (first, second):
        assert run.data.params["cache.num_views"] == "2"
        assert run.data.tags["teacher_features"].startswith(kind.name)
    assert first.data.metrics["cache/views"] == 58
    assert "cache/views" not in second.data.metrics
    own = exported(scale=2.0).model_copy(update={"num_frames": 2})
    run_transfer(small_run(name="own", teacher=own.model_dump(), cache={"num_views": 2}))
    assert "teacher features: 58 views" in capsys.readouterr().out


@pytest.mark.parametrize("pairs", ["literal", "all"])
def test_the_other_ways_of_making_pairs_train_too(pairs, small_run, tmp_path):
    run_transfer(small_run(name=pairs, pairs=pairs, norm_features=True))
    logged = [json.loads(line) for line in (tmp_path / "runs" / pairs / "metrics.jsonl").read_text().splitlines()]
    [trained] = [line["metrics"]["train/negatives_per_positive"] for line in logged if "train/loss" in line["metrics"]]
    assert 5 < trained <= 7 if pairs == "all" else 0.2 < trained < 5


def test_keys_are_learned_in_place_of_pairs_or_beside_them_and_are_the_same_in_every_run(small_run, tmp_path):
    teacher = {"kind": "efficientnet_lite0", "num_frames": 4, "crop_size": 64, "target": "mean_std"}
    teacher["random_crop"] = False
    learned = {"teacher": teacher, "cache": {"num_views": 2}, "checks": {"max_clips": 50}, "other_time_share": 0.2}
    summary = run_transfer(small_run(name="keys", losses={"pairs": 0, "contrast": 1, "regression": 1}, **learned))
    found = re.search(r"keys: +(0\.\d+) before, (0\.\d+) after: share of the training clips' keys", summary)
    assert found
    assert re.search(r"R2 -?\d+\.\d+ before, -?\d+\.\d+ after", summary)
    assert re.search(r"checks: +keys 0\.\d+ \(95 % interval 0\.\d+ to [01]\.\d+\), in other colours 0\.\d+", summary)
    assert "pairs:" not in summary
    folder = tmp_path / "runs" / "keys"
    curves = read_curves(folder / "metrics.jsonl")
    # The checks and the validation see the same clips and keys.
    checked, validated = (dict(curves[f"{kind}/key_rank"]) for kind in ("check", "val"))
    assert checked == pytest.approx(validated)
    assert load_file(folder / "student.safetensors").keys() == build_model(num_classes=0, **MODEL).state_dict().keys()

    keys, losses = (folder / "keys.safetensors").read_bytes(), {"pairs": 1, "contrast": 1, "soft_labels": 1}
    both = run_transfer(small_run(name="both", losses=losses, **learned))
    assert "pairs:" in both
    assert "keys:" in both
    assert (tmp_path / "runs" / "both" / "keys.safetensors").read_bytes() == keys


@pytest.mark.parametrize("projection", ["always", "mlp"])
def test_a_projection_is_dropped_after_the_transfer(projection, small_run, tmp_path):
    run_transfer(small_run(name="projected", projection=projection))
    names = load_file(tmp_path / "runs" / "projected" / "student.safetensors").keys()
    assert names == build_model(num_classes=0, **MODEL).state_dict().keys()


def test_fewer_source_videos_than_a_batch_are_refused(small_run):
    expected = (
        r"global_batch_size 64 is more than the 2\d source videos to train on.*: lower it, or prepare more videos"
    )
    with pytest.raises(ValueError, match=expected):
        run_transfer(small_run(global_batch_size=64))


def test_checks_that_cannot_be_drawn_are_left_out(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "time_ms": 0, "metrics": {"check/pair_accuracy": 0.5}}\n')
    (tmp_path / "checks.png").write_bytes(b"of an earlier part of the run")
    logged = []
    folder = SimpleNamespace(path=tmp_path, run=SimpleNamespace(log_artifact=logged.append))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipelines.transfer.job.plot_checks", lambda *_, **__: 1 / 0)
        _plot_checks(folder)
    assert "checks.png is not drawn" in caplog.text
    assert not logged
    assert not (tmp_path / "checks.png").exists()
    _plot_checks(folder)
    assert logged == [tmp_path / "checks.png"]


def test_a_run_reports_whether_it_learns_or_cheats_before_and_after(small_run, weizmann_shards, tmp_path):
    looked_at = {"clip": {"num_frames": 16, "frame_stride": 1, "crop_size": 32}, "cache": {"num_views": 4}}
    looked_at |= {"checks": {"max_clips": 100}, "probe": {"shards": (weizmann_shards,), "max_videos": 20}}
    summary = run_transfer(small_run(name="looked_at", **looked_at))
    curves = read_curves(tmp_path / "runs" / "looked_at" / "metrics.jsonl")
    for name in ("check/pair_accuracy_low", "check/match_share_other_time", "check/effective_rank", "probe/knn_top1"):
        assert [step for step, _ in curves[name]] == [0, curves["train/loss"][-1][0]]
    # The checks and the validation see the same clips, crops and frames.
    checked, validated = (dict(curves[f"{kind}/pair_accuracy"]) for kind in ("check", "val"))
    assert checked == pytest.approx(validated)
    assert re.search(r"checks: +pairs 0\.\d+ \(95 % interval 0\.\d+ to [01]\.\d+\), in other colours 0\.\d+", summary)
    interval = r"\(95 % interval 0\.\d+ to [01]\.\d+\)"
    probed = (
        rf"probe: +linear 0\.\d+ before, 0\.\d+ after {interval}; neighbours 0\.\d+ before, 0\.\d+ after {interval}"
    )
    assert len(re.findall(probed, summary)) == 2
    assert summary.count("(transductive)") == 1
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert "checks.png" in [artifact.path for artifact in client.list_artifacts(run.info.run_id)]
    assert run.data.metrics["probe/linear_top1"] == pytest.approx(curves["probe/linear_top1"][-1][1])


def test_checks_can_be_left_out(small_run, tmp_path):
    summary = run_transfer(small_run(name="plain"))
    assert "checks:" not in summary
    assert not any("check/" in name for name in read_curves(tmp_path / "runs" / "plain" / "metrics.jsonl"))
    assert not (tmp_path / "runs" / "plain" / "checks.png").exists()


def test_a_probe_without_labels_is_refused_before_the_run(small_run, synthetic_shards, tmp_path):
    unlabelled = shutil.copytree(synthetic_shards, tmp_path / "unlabelled", ignore=shutil.ignore_patterns("videos"))
    description = json.loads((unlabelled / "dataset.json").read_text())
    (unlabelled / "dataset.json").write_text(json.dumps(description | {"class_names": []}))
    with changed_videos(unlabelled) as videos:
        for video in videos:
            video["label"] = None
    with pytest.raises(ValueError, match=r"probe\.shards .*unlabelled.* have no labels"):
        run_transfer(small_run(probe={"shards": (unlabelled,)}))


def test_a_twin_learns_frames_and_its_weights_inflate_a_student_and_a_classifier(
    small_run, synthetic_shards, tmp_path, capsys
):
    summary = run_transfer(small_run(name="twin", objective="frame_regression"))
    assert "after: on frame features of 9 held-out source videos" in summary
    weights = tmp_path / "runs" / "twin" / "twin.pt"
    assert f"jobs/train.py with this model section and --inflate_from {weights}" in summary
    run_transfer(small_run(name="inflated", inflate_from=str(weights)))
    assert f"from {weights}\n" in capsys.readouterr().out
    initial = load_file(tmp_path / "runs" / "inflated" / "initial.safetensors")
    kernel = torch.load(weights)["features.conv0.weight"]
    torch.testing.assert_close(initial["features.conv0.weight"].sum(dim=2), kernel)
    student = load_file(tmp_path / "runs" / "inflated" / "student.safetensors")["features.conv0.weight"]
    random = build_model(num_classes=0, **MODEL).state_dict()["features.conv0.weight"]
    assert (student.sum(dim=2) - kernel).abs().max() < (random.sum(dim=2) - kernel).abs().max() / 2
    run_train(
        TrainConfig(
            **small_run(name="tuned", inflate_from=str(weights)).model_dump(
                include={"model", "clip", "global_batch_size", "epochs", "schedule", "scaling", "storage", "tracking"}
            ),
            data={"shards": (synthetic_shards,)},
            inflate_from=str(weights),
            name="tuned",
        )
    )


def test_what_a_twin_cannot_have_is_refused(small_run):
    with pytest.raises(ValidationError, match="cache holds features of whole clips"):
        small_run(objective="frame_regression", cache={})
    with pytest.raises(ValidationError, match="objective frame_regression trains a 2D one"):
        small_run(objective="frame_regression", inflate_from="twin.pt")
    with pytest.raises(ValidationError, match=r"compute\.recompute true is for a 3D network.*leave it off"):
        small_run(objective="frame_regression", compute={"recompute": True})
    with pytest.raises(ValueError, match=r"model\.kind c3d has no 2D twin"):
        run_transfer(small_run(objective="frame_regression", model={"kind": "c3d"}))


def test_a_run_resumed_with_a_probe_reports_what_it_has(small_run, weizmann_shards, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.transfer.job.describe_transfer", stop)
        with pytest.raises(KeyboardInterrupt):
            run_transfer(small_run(name="later", checkpoint={"every_steps": 1}))
    for checkpoint in sorted((tmp_path / "runs" / "later").glob("checkpoint_*"))[1:]:
        shutil.rmtree(checkpoint)
    probe = {"shards": (weizmann_shards,), "max_videos": 20}
    looked_at = small_run(name="later", checkpoint={"every_steps": 1}, checks={"max_clips": 100}, probe=probe)
    summary = run_transfer(looked_at)
    assert re.search(r"probe: +linear 0\.\d+ after \(95 % interval .*\); neighbours", summary)
    assert re.search(r"effective rank \d+\.\d after", summary)


@pytest.mark.parametrize(
    "changed",
    [
        {"teacher": {"kind": "efficientnet_lite0", "num_frames": 3, "crop_size": 64}},
        {"teacher": {"kind": "efficientnet_lite0", "num_frames": 2, "crop_size": 32}},
        {"teacher": {"kind": "efficientnet_lite1", "num_frames": 2, "crop_size": 64}},
        {"teacher": {"kind": "efficientnet_lite0", "num_frames": 2, "crop_size": 64, "shared_crop": True}},
        {"cache": {"num_views": 3}},
        {"clip": {"num_frames": 8, "crop_size": 32}},
        {"clip": {"num_frames": 16, "crop_size": 32, "frame_stride": 1}},
        {"clip": {"num_frames": 16, "crop_size": 32, "short_video": "repeat_last"}},
        {"augmentation": {"flip": False}},
    ],
)
def test_other_teachers_and_other_views_have_features_of_their_own(changed, small_run, synthetic_shards):
    def fingerprint(config):
        index = load_index([synthetic_shards], fold=1, splits=["train"])
        card = card_of(config.model, config.clip, class_names=())
        loader = CorrespondenceStage(config, card, index, index).loader(index)
        return _fingerprint(config, teacher_of(config.teacher), loader)

    usual = {"cache": {"num_views": 2}}
    assert fingerprint(small_run(**usual)) == fingerprint(small_run(**usual, seed=7, augmentation={"hue": 0.1}))
    assert fingerprint(small_run(**usual)) != fingerprint(small_run(**usual | changed))
    if changed.get("teacher", {}).get("shared_crop"):  # then the student's crop is the teacher's
        assert fingerprint(small_run(**usual | changed)) != fingerprint(
            small_run(**usual | changed, augmentation={"flip": False})
        )


def test_two_real_workers_look_at_the_student_as_one_does(small_run, synthetic_shards, tmp_path):
    """Of a network that has not learned: training itself differs, for each worker's batch norms see its own clips."""
    found = {}
    for num_workers in (0, 2):
        run_transfer(
            small_run(
                name=f"by_{num_workers}",
                scaling={"num_workers": num_workers, "resources_per_worker": {"CPU": 0.5}},
                micro_batch_size=4,
                norm_features=True,
                checks={"max_clips": 10},  # of three batches two are the first worker's
                probe={"shards": (synthetic_shards,), "max_videos": 16},
            )
        )
        curves = read_curves(tmp_path / "runs" / f"by_{num_workers}" / "metrics.jsonl")
        found[num_workers] = {name: points[0][1] for name, points in curves.items() if name[:6] in ("check/", "probe/")}
        assert curves["probe/linear_top1_own_statistics"][-1][0] > 0
    assert len(found[0]) >= 12
    assert found[2] == pytest.approx(found[0], abs=1e-3)
