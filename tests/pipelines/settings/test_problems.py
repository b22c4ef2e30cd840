from pathlib import Path

import pytest

from pipelines.settings.command_line import load_config
from tests.pipelines.settings.example import Evaluate, Failing


def test_all_wrong_settings_are_listed_one_line_each_wherever_they_come_from(failing: Failing):
    lines = failing(
        "--optimizer.lr abc --data.fold 7 --model.growth_rat 3 --init_from --optimizer.clip -3 --max_failed_fraction 2",
        recipe="optimiser: {lr: 1}\nname: [1]\nmodel: {block_config: [3, x]}",
    )
    assert sorted(lines[:-1]) == [
        "data.fold: given 7, allowed: 1|2|3|null",
        "init_from: no value given, allowed: path|null",
        "max_failed_fraction: given 2, allowed: number>=0,<=1",
        'model.block_config.1: given "x", allowed: integer ...',
        'model.growth_rat: given "3", no such setting, the closest is model.growth_rate',
        "name: given [1], allowed: text",
        'optimiser: given {"lr": 1}, no such setting, the closest is optimizer',
        "optimizer.clip: given -3, allowed: integer>0|auto|null",
        'optimizer.lr: given "abc", allowed: number>0',
    ]
    assert len(lines) == 10
    assert lines[-1].startswith("error: wrong settings (recipe ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--optimiser.lr 3", 'optimiser.lr: given "3", no such setting, the closest is optimizer.lr'),
        ("--lr 3", 'lr: given "3", no such setting, the closest is optimizer.lr'),
        ("--init-from x", 'init-from: given "x", no such setting, the closest is init_from'),
        ("--optimizer.lr.x 3", 'optimizer.lr.x: given "3", no such setting, the closest is optimizer.lr'),
        ("--model.depth 3", "model.depth: given 3, no such setting, only of kind resnet3d_50"),
        ("--model.kind zz", 'model.kind: given "zz", allowed: t3d_121|t3d_169|resnet3d_50'),
        ("--teacher.depth 3", "teacher.kind: needed, allowed: t3d_121|t3d_169|resnet3d_50"),
        ("--optimizer.lr true", "optimizer.lr: given true, allowed: number>0"),
        ("--optimizer.lr nan", 'optimizer.lr: given "nan", allowed: number>0'),
        ("--optimizer.nesterov maybe", 'optimizer.nesterov: given "maybe", allowed: true|false'),
        ("--data null", "data: given null, allowed: {shards, fold}"),
        ("--name a b", 'name: given ["a", "b"], allowed: text'),
        ("--name a/b", 'name: given "a/b", a name has no slash'),
        ("stray", "'stray': unexpected, a setting is given as --name value"),
        ("--print-config stray", "'stray': unexpected, a setting is given as --name value"),
    ],
)
def test_a_wrong_setting_is_named_with_value_and_cure(failing: Failing, line: str, message: str):
    assert failing(line)[:-1] == [message]


def test_a_needed_setting_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "q.yaml").write_text("{}")
    with pytest.raises(SystemExit):
        load_config(Evaluate, argv=[], quickstart=tmp_path / "q.yaml", program="p")
    assert capsys.readouterr().err.splitlines()[0] == "checkpoint: needed, allowed: path"
