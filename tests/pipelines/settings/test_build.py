import pytest
from pydantic import ValidationError

from pipelines.settings.build import changed
from t3d_core.errors import UserError
from tests.pipelines.settings.example import DeepHead, Load, ResNetModel, T3DModel, Train


def test_another_kind_drops_what_the_recipe_said_of_that_section_only(load: Load):
    recipe = "model: {kind: t3d_121, growth_rate: 16}\noptimizer: {lr: 0.5}"
    config = load("--model.kind resnet3d_50", recipe=recipe)
    assert config.model == ResNetModel()
    assert config.optimizer.lr == 0.5
    assert load("--model.kind t3d_169", recipe=recipe).model == T3DModel(kind="t3d_169", growth_rate=32)


def test_the_same_kind_keeps_what_the_recipe_said(load: Load):
    recipe = "model: {kind: t3d_169, growth_rate: 16}"
    assert load("--model.kind t3d_169", recipe=recipe).model == T3DModel(kind="t3d_169", growth_rate=16)
    assert load("--model.kind t3d_121", recipe="model: {growth_rate: 16}").model == T3DModel(growth_rate=16)


def test_settings_of_the_new_kind_count_in_any_order(load: Load):
    for line in ("--model.kind resnet3d_50 --model.depth 7", "--model.depth 7 --model.kind resnet3d_50"):
        assert load(line, recipe="model: {kind: t3d_121, growth_rate: 16}").model == ResNetModel(depth=7)


def test_an_inner_kind_drops_the_inner_section_only(load: Load):
    recipe = "model: {kind: t3d_121, growth_rate: 16, head: {kind: linear, bias: false}}"
    config = load("--model.head.width 9 --model.head.kind deep", recipe=recipe)
    assert config.model == T3DModel(growth_rate=16, head=DeepHead(width=9))


def test_an_optional_union_can_be_switched_on(load: Load):
    assert load("--teacher.kind resnet3d_50 --teacher.depth 5").teacher == ResNetModel(depth=5)


def test_a_recipe_of_another_kind_than_the_default_starts_from_that_kind(load: Load):
    assert load(recipe="model: {kind: resnet3d_50}").model == ResNetModel(growth_rate=12)


def test_a_config_is_frozen(load: Load):
    with pytest.raises(ValidationError):
        load().name = "other"  # type: ignore[misc]


def test_a_changed_config_is_checked_again(load: Load):
    config = changed(load(), {"optimizer.lr": 0.3, "model.kind": "resnet3d_50"})
    assert (config.optimizer.lr, config.model) == (0.3, ResNetModel())
    assert type(config) is Train
    with pytest.raises(UserError, match=r"optimizer\.lr: given -1, allowed: number>0"):
        changed(config, {"optimizer.lr": -1})
