import optuna
import pytest
from pydantic import ValidationError

from pipelines.search.config import AxisConfig, SearchConfig
from pipelines.search.space import Point, check_points, draw_point, grid_points, trial_of
from pipelines.settings.build import with_values

optuna.logging.set_verbosity(optuna.logging.WARNING)


def space(**axes):
    return {name.replace("__", "."): AxisConfig(**axis) for name, axis in axes.items()}


def test_a_grid_is_every_combination_the_last_axis_fastest():
    points = grid_points(space(seed_lr={"grid": {"low": {"optimizer.lr": 0.01}, "high": {"optimizer.lr": 0.1}}},
                               clip__frame_stride={"grid": [1, 2]}))  # fmt: skip
    assert [point.label for point in points] == [
        "low, frame_stride=1",
        "low, frame_stride=2",
        "high, frame_stride=1",
        "high, frame_stride=2",
    ]
    assert points[2].settings == {"optimizer.lr": 0.1, "clip.frame_stride": 1}


def test_folds_are_repetitions_of_a_point_and_no_part_of_its_name():
    axes = space(net={"grid": {"wide": {"model.growth_rate": 16}}}, data__fold={"grid": [1, 2]})
    assert [point.label for point in grid_points(axes)] == ["wide, fold=1", "wide, fold=2"]
    assert {point.label_of_repetitions for point in grid_points(axes)} == {"wide"}
    assert {point.label_of_repetitions for point in grid_points({"data.fold": axes["data.fold"]})} == {"all folds"}


def test_an_axis_that_takes_no_part_makes_no_second_point():
    axes = space(model__kind={"grid": ["t3d", "c3d"]}, depth={"grid": [1, 2], "when": {"model.kind": ["t3d"]}})
    assert [point.settings for point in grid_points(axes)] == [
        {"model.kind": "t3d", "depth": 1},
        {"model.kind": "t3d", "depth": 2},
        {"model.kind": "c3d"},
    ]


def drawn(axes, number):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    return draw_point(axes, study.ask())


def test_what_is_drawn_lies_within_the_axes_and_conditions_hold():
    axes = space(
        net={"choice": {"wide": {"model.growth_rate": 32}, "narrow": {"model.growth_rate": 8}}},
        lr={"loguniform": [0.001, 0.1]},
        depth={"randint": [2, 4], "when": {"net": "narrow"}},
    )
    points = [drawn(axes, number) for number in range(40)]
    assert {point.values["net"] for point in points} == {"wide", "narrow"}
    assert all(0.001 <= point.settings["lr"] <= 0.1 for point in points)
    assert {point.settings["depth"] for point in points if point.values["net"] == "narrow"} == {2, 3, 4}
    assert not any("depth" in point.settings for point in points if point.values["net"] == "wide")
    assert {point.settings["model.growth_rate"] for point in points} == {32, 8}


def test_a_point_that_was_trained_before_is_one_that_the_sampler_could_have_proposed():
    axes = space(net={"choice": [[3, 3], [6, 6]]}, lr={"uniform": [0.0, 1.0]})
    point = drawn(axes, 7)
    study = optuna.create_study()
    study.add_trial(trial_of(axes, point, [0.25]))
    [known] = study.trials
    assert known.value == 0.25
    assert [[3, 3], [6, 6]][known.params["net"]] == point.settings["net"]
    assert known.params["lr"] == point.settings["lr"]


def test_ends_of_ranges_and_all_listed_values_are_tried_on_the_recipe():
    axes = space(lr={"uniform": [0.1, 0.2]}, net={"choice": {"a": {"x": 1, "y": 2}}}, d={"randint": [1, 3]})
    assert list(check_points(axes)) == [
        ("axis lr", {"lr": 0.1}),
        ("axis lr", {"lr": 0.2}),
        ("axis net", {"x": 1, "y": 2}),
        ("axis d", {"d": 1}),
        ("axis d", {"d": 3}),
    ]


def test_of_a_grid_every_point_is_tried():
    axes = {"net": AxisConfig(grid={"T3D": {}, "ResNet3D": {"kind": "resnet3d_18"}}),
            "ttl": AxisConfig(grid=[True, False], when={"net": "ResNet3D"})}  # fmt: skip
    assert list(check_points(axes)) == [
        ("point T3D", {}),
        ("point ResNet3D, ttl=True", {"kind": "resnet3d_18", "ttl": True}),
        ("point ResNet3D, ttl=False", {"kind": "resnet3d_18", "ttl": False}),
    ]


def test_a_label_names_named_values_and_the_last_part_of_settings():
    point = Point({"architecture": "T3D", "optimizer.lr": 0.0123456}, {"model.kind": "t3d", "optimizer.lr": 0.0123456})
    assert point.label == "T3D, lr=0.01235"


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({}, "given nothing: give exactly one of grid, choice"),
        ({"grid": [1], "uniform": [0, 1]}, "given grid, uniform: give exactly one of"),
        ({"grid": []}, "grid has no values"),
        ({"uniform": [2, 1]}, r"uniform \[2.0, 1.0\] must be \[least, most\]"),
        ({"loguniform": [0, 1]}, "greater than 0"),
    ],
)
def test_an_axis_that_says_nothing_or_two_things_is_refused(axis, message):
    with pytest.raises(ValidationError, match=message):
        AxisConfig(**axis)


def test_named_values_may_set_anything():
    settings = {"replace_head": True, "model": {"ttl": True}}
    recipe = {"base": "recipe.yaml", "space": {"weights": {"grid": {"tuned": settings}}}}
    config = with_values(SearchConfig, recipe, {})
    assert grid_points(config.space)[0].settings == settings
