from pathlib import Path

import pytest

from pipelines.settings.command_line import load_config
from pipelines.settings.section import flatten
from tests.pipelines.settings.example import Evaluate, Load, Train


def test_help_names_every_setting_with_text_and_default_within_100_columns(
    load: Load, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit_info:
        load("--optimizer.lr wrong --help")
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert exit_info.value.code == 0
    assert max(map(len, text.splitlines())) <= 100
    assert "Trains a network." in words
    assert "second paragraph" not in words
    assert "Without --recipe, " in words
    assert "quickstart.yaml is the recipe" in words
    assert all(f"--{name} " in words for name in [*flatten(load()), "teacher.depth", "model.head.width", "recipe"])
    assert "--print-config" in words
    assert "--optimizer.lr number>0 Step size, 50 % of the usual. (default 0.01)" in words
    assert "(t3d_121, t3d_169: default 24; resnet3d_50: default 12)" in words
    assert "--model.depth integer [resnet3d_50] (default 50)" in words
    assert "--model.block_config integer ... [t3d_121, t3d_169] (default 6 12 24 16)" in words
    assert "--model.kind t3d_121|t3d_169|resnet3d_50 (default t3d_121)" in words
    assert "--teacher.kind t3d_121|t3d_169|resnet3d_50 (default none)" in words


def test_help_marks_what_is_required(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        load_config(Evaluate, argv=["-h"], quickstart=Path("q.yaml"), program="p")
    assert "--checkpoint path Weights. (required)" in " ".join(capsys.readouterr().out.split())


class Short(Train):
    """Trains a network."""

    FIRST_SETTINGS = ("optimizer.lr", "model.kind", "model.depth", "data.shards")


def test_help_shows_the_first_settings_with_the_values_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "quickstart.yaml").write_text("optimizer: {lr: 0.5}\nmodel: {kind: t3d_121}")
    (tmp_path / "long.yaml").write_text("optimizer: {lr: 0.7}\nmodel: {kind: resnet3d_50}")
    shown = {}
    for recipe in ("quickstart", "long"):
        argv = ["--help", "--recipe", recipe]
        with pytest.raises(SystemExit) as end:
            load_config(Short, argv=argv, quickstart=tmp_path / "quickstart.yaml", program="python jobs/train.py")
        assert end.value.code == 0
        shown[recipe] = " ".join(capsys.readouterr().out.split())
    assert "--optimizer.lr LR Step size, 50 % of the usual. (default 0.5)" in shown["quickstart"]
    assert "--model.kind KIND One of t3d_121, t3d_169, resnet3d_50. (default t3d_121)" in shown["quickstart"]
    assert "--model.depth DEPTH (of kind resnet3d_50)" in shown["quickstart"]
    assert "--data.shards SHARDS Shard folders. (default shards)" in shown["quickstart"]
    assert "--optimizer.nesterov" not in shown["quickstart"]
    assert "recipes: long, quickstart" in shown["quickstart"]
    assert "(default 0.7)" in shown["long"]
    assert "(default resnet3d_50)" in shown["long"]


def test_help_of_a_recipe_with_a_wrong_value_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "quickstart.yaml").write_text("optimizer: {lr: fast}")
    with pytest.raises(SystemExit) as end:
        load_config(Short, argv=["--help"], quickstart=tmp_path / "quickstart.yaml", program="p")
    assert end.value.code == 0
    assert "(default fast)" in capsys.readouterr().out
