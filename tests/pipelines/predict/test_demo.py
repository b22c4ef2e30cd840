"""The demo shows all that `predict` makes, of videos that no recipe trains on, and trains only where it has to."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.networks.weights import card_of
from pipelines.predict import demo
from pipelines.predict.config import PredictConfig
from pipelines.predict.demo import find_demo_weights, run_demo, write_demo_videos
from pipelines.settings.command_line import load_config
from pipelines.train.config import TrainConfig
from t3d_core.datasets.synthetic import CLASS_NAMES, SyntheticSettings
from t3d_core.models import build_model
from t3d_core.training.checkpoint import save_weights
from t3d_core.video.decoding import probe
from tests.pipelines.evaluate.small_network import CLIP, MODEL

QUICKSTART = Path(__file__).parents[3] / "jobs" / "recipes" / "train" / "quickstart.yaml"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two small videos."""
    monkeypatch.setattr(demo, "_SETTINGS", SyntheticSettings(videos_per_class=1, height=48, width=64))
    monkeypatch.setattr(demo, "_SHORT", ("move_left",))
    monkeypatch.setattr(demo, "_LONG", ("move_left", "drift_fast"))


def save_network(path, class_names=CLASS_NAMES):
    path.parent.mkdir(parents=True)
    card = card_of(MODEL, CLIP, class_names=class_names)
    save_weights(build_model(card.model_kind, num_classes=len(class_names), **card.model_arguments), path, card=card)


@pytest.mark.heavy
def test_the_demo_trains_once_and_then_shows_everything_that_predict_can(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config, trained = PredictConfig(demo=True, storage=tmp_path / "runs"), []

    def train(arguments):
        trained.append(load_config(TrainConfig, argv=arguments, quickstart=QUICKSTART, program="train"))
        save_network(trained[-1].storage / trained[-1].name / "model.safetensors")
        return "trained"

    summary = run_demo(config, train=train)
    out = capsys.readouterr().out
    assert "are synthetic" in out
    assert "python jobs/train.py --name demo" in out
    assert out.count("temporal layer 1") == 2
    assert "of 1 short videos" in summary
    [output] = (tmp_path / "runs").glob("predict-demo-*")
    names = {"timeline.csv", "timeline.png", "annotated.mp4", "explanation.png", "explanation.mp4"}
    assert all({path.name for path in folder.iterdir()} == names for folder in (output / "videos").iterdir())
    monkeypatch.setattr(demo, "_SHOWN", {})
    run_demo(PredictConfig(demo=True, storage=tmp_path / "runs", output=tmp_path / "second"), train=train)
    [config_of_train] = trained
    assert (config_of_train.augmentation.flip, config_of_train.epochs) == (False, 20)
    assert (config_of_train.optimizer.kind, config_of_train.optimizer.lr) == ("adamw", 0.003)
    assert config_of_train.data.prepare.dataset.kind == "synthetic"


def test_the_newest_network_of_the_motions_is_found_and_others_are_not(tmp_path):
    assert find_demo_weights(tmp_path) is None
    save_network(tmp_path / "mine" / "model.safetensors", ("run", "jump"))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut off")
    assert find_demo_weights(tmp_path) is None
    for name in ("first", "second"):
        save_network(tmp_path / name / "model.safetensors")
    assert find_demo_weights(tmp_path) == tmp_path / "second" / "model.safetensors"


def test_videos_that_exist_are_kept(tmp_path):
    [short, long] = write_demo_videos(tmp_path)
    assert probe(long).num_frames == 2 * probe(short).num_frames == 96
    short.write_bytes(b"kept")
    write_demo_videos(tmp_path)
    assert short.read_bytes() == b"kept"


@pytest.mark.parametrize("changes", [{"inputs": ("a.mp4",)}, {"model": "runs/mine"}])
def test_the_demo_takes_neither_videos_nor_a_model(changes):
    with pytest.raises(ValidationError, match="leave inputs and model out"):
        PredictConfig(demo=True, **changes)
