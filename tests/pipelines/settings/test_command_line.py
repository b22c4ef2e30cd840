from pathlib import Path

import pytest
import yaml

from pipelines.settings.command_line import load_config
from pipelines.settings.section import flatten
from tests.pipelines.settings.example import Failing, LinearHead, Load, Optimizer, T3DModel, Train


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--optimizer.lr 0.05", "optimizer.lr", 0.05),
        ("--optimizer.lr=5e-2", "optimizer.lr", 0.05),
        ("--optimizer.lr 1 --optimizer.lr 2", "optimizer.lr", 2.0),
        ("--data.fold 2", "data.fold", 2),
        ("--data.shards A B", "data.shards", '["A", "B"]'),
        ("--data.shards A --data.shards B", "data.shards", '["A", "B"]'),
        ("--data.shards A", "data.shards", '["A"]'),
        ("--data.shards 7", "data.shards", '["7"]'),
        ("--data.shards none", "data.shards", "[]"),
        ('--data.shards ["A","B"]', "data.shards", '["A", "B"]'),
        ("--data.shards [A,B]", "data.shards", '["A", "B"]'),
        ("--model.block_config 6 12", "model.block_config", "[6, 12]"),
        ("--model.block_config [6,12]", "model.block_config", "[6, 12]"),
        ("--model.block_config 6", "model.block_config", "[6]"),
        ("--optimizer.clip auto", "optimizer.clip", "auto"),
        ("--optimizer.clip 3", "optimizer.clip", 3),
        ("--init_from runs/a#1", "init_from", "runs/a#1"),
        ("--max_failed_fraction 0", "max_failed_fraction", 0.0),
        ("--name 123", "name", "123"),
        ("--name true", "name", "true"),
        ("--name=--odd", "name", "--odd"),
        ("--name=", "name", ""),
        ("--name null", "name", "null"),
        ("--resources.CPU 2", "resources.CPU", 2.0),
        ("--resources.accelerator.a 1", "resources.accelerator.a", 1.0),
        ('--optimizer {"lr":0.5}', "optimizer.lr", 0.5),
        ("--optimizer.nesterov", "optimizer.nesterov", True),
        ("--optimizer.nesterov false", "optimizer.nesterov", False),
        ("--no-optimizer.nesterov", "optimizer.nesterov", False),
    ],
)
def test_an_override_reads_as_the_type_of_its_setting(load: Load, line: str, name: str, value: object):
    found = flatten(load(line))[name]
    assert found == value
    assert type(found) is type(value)


def test_a_word_with_blanks_stays_whole(load: Load):
    assert load("--name", "two  words # three").name == "two  words # three"


def test_a_negative_number_is_a_value(failing: Failing):
    assert failing("--optimizer.lr -1")[0] == "optimizer.lr: given -1, allowed: number>0"


@pytest.mark.parametrize("null", ["null", "none", "None"])
def test_null_clears_an_optional_setting(load: Load, null: str):
    recipe = "data: {fold: 2}\ninit_from: w\nteacher: {kind: resnet3d_50}\noptimizer: {clip: auto}"
    config = load(
        f"--data.fold {null} --init_from {null} --teacher {null} --optimizer.clip {null}",
        recipe=recipe,
    )
    assert (config.data.fold, config.init_from, config.teacher, config.optimizer.clip) == (None,) * 4


def test_without_a_recipe_the_quickstart_is_the_base_whatever_else_is_given(load: Load):
    config = load("--optimizer.nesterov false", quickstart="name: quick\noptimizer: {lr: 0.5}")
    assert (config.name, config.optimizer.lr, config.optimizer.nesterov) == ("quick", 0.5, False)


def test_a_recipe_replaces_the_quickstart_altogether(load: Load):
    config = load(recipe="optimizer: {lr: 0.5}", quickstart="name: quick")
    assert (config.name, config.optimizer.lr) == ("train", 0.5)


def test_recipe_may_be_given_with_an_equals_sign_and_anywhere(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("name: r")
    argv = ["--optimizer.lr", "0.3", f"--recipe={tmp_path / 'r.yaml'}", "--data.fold", "1"]
    config = load_config(Train, argv=argv, quickstart=tmp_path / "absent.yaml", program="p")
    assert (config.name, config.optimizer.lr, config.data.fold) == ("r", 0.3, 1)


def test_a_section_given_in_part_keeps_the_rest_of_the_default_section(load: Load):
    assert load(recipe="optimizer: {nesterov: false}").optimizer == Optimizer(lr=0.01, nesterov=False)
    assert load(recipe="model: {block_config: [1]}").model == T3DModel(growth_rate=24, block_config=(1,))
    assert load("--model.head.bias false").model == T3DModel(growth_rate=24, head=LinearHead(bias=False))


def test_environment_variables_do_not_leak_in(load: Load, monkeypatch: pytest.MonkeyPatch):
    for name in ("name", "NAME", "home", "HOME", "optimizer__lr", "OPTIMIZER"):
        monkeypatch.setenv(name, "0.7")
    assert load() == Train()


def test_print_config_prints_what_the_job_would_run_with(load: Load, capsys: pytest.CaptureFixture[str]):
    line = "--model.block_config 1 2 --optimizer.lr 0.3"
    with pytest.raises(SystemExit) as exit_info:
        load(f"--print-config {line}")
    printed = capsys.readouterr().out
    assert exit_info.value.code == 0
    assert "\n  block_config: [1, 2]\n" in printed
    assert load(recipe=printed) == load(line)
    assert yaml.safe_load(printed)["optimizer"]["lr"] == 0.3
