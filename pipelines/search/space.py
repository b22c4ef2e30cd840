"""A search space becomes points: the settings of each trial, and its label."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from pipelines.search.config import REPLICATES, AxisConfig

Space = Mapping[str, AxisConfig]


@dataclass(frozen=True)
class Point:
    """One point of a space.

    Attributes:
        values: axis -> its value, or the name of its named value; unused axes are left out.
        settings: dotted name -> value.
    """

    values: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name: named values as they are, other values after the last part of their setting."""
        return ", ".join(self._parts(self.values))

    @property
    def label_of_repetitions(self) -> str:
        """Its name in tables that pool its folds, because these are repetitions of it."""
        parts = self._parts(axis for axis in self.values if axis not in REPLICATES)
        return ", ".join(parts) or "all folds"

    def _parts(self, axes: Iterable[str]) -> list[str]:
        return [
            str(self.values[axis])
            if axis not in self.settings
            else f"{axis.rpartition('.')[2]}={_shown(self.values[axis])}"
            for axis in axes
        ]


def grid_points(space: Space) -> list[Point]:
    """Every point of a space of grids; the last axis varies fastest, and unused axes add no points."""
    points = [Point({}, {})]
    for name, axis in space.items():
        points = [extended for point in points for extended in _extended(point, name, axis)]
    return points


def draw_point(space: Space, trial: Trial) -> Point:
    """The point that a sampler proposes in an Optuna trial."""
    point = Point({}, {})
    for name, axis in space.items():
        if _takes_part(axis, point):
            point = _with(point, name, axis, _drawn(name, axis, trial))
    return point


def perturbed_point(space: Space, donor: Point, rng: np.random.Generator, *, share_drawn: float) -> Point:
    """A point near a donor's: the exploration of population based training (Jaderberg et al. 2017, section 3.1).

    Args:
        space: the axes.
        donor: the point from which it starts.
        rng: source of the random choices.
        share_drawn: probability for each axis that its value is drawn anew.
    """
    point = Point({}, {})
    for name, axis in space.items():
        if _takes_part(axis, point):
            is_drawn = rng.random() < share_drawn or name not in donor.values
            value = _drawn_anew(axis, rng) if is_drawn else _neighbour(axis, donor.values[name], rng)
            point = _with(point, name, axis, value)
    return point


def _drawn_anew(axis: AxisConfig, rng: np.random.Generator) -> Any:
    values = list(axis.values())
    if not axis.is_range():
        return values[int(rng.integers(len(values)))]
    low, high = values
    if axis.kind == "randint":
        return int(rng.integers(low, high + 1))
    if axis.kind == "loguniform":
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))


def _neighbour(axis: AxisConfig, value: Any, rng: np.random.Generator) -> Any:
    """0.8 or 1.25 times the value, within the range; of listed values the one before or after it, if there is one."""
    values, is_up = list(axis.values()), bool(rng.integers(2))
    if not axis.is_range():
        place = values.index(value) + (1 if is_up else -1)
        return values[min(max(place, 0), len(values) - 1)]
    low, high = values
    moved = min(max(value * (1.25 if is_up else 0.8), low), high)
    return round(moved) if axis.kind == "randint" else moved


def trial_of(space: Space, point: Point, objectives: Sequence[float]) -> FrozenTrial:
    """A point that was trained before, in the form that Optuna gives to its own proposals."""
    distributions = {name: _distribution(space[name]) for name in point.values}
    parameters = {
        name: list(space[name].values()).index(value) if space[name].kind == "choice" else value
        for name, value in point.values.items()
    }
    return create_trial(params=parameters, distributions=distributions, values=list(objectives))


def check_points(space: Space) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Settings that must fit the base recipe, each with its place in the space.

    For a grid, these are all points. Otherwise they are each listed value and both ends of each range, together with
    the values of other axes that they need.
    """
    if all(axis.kind == "grid" for axis in space.values()):
        yield from ((f"point {point.label}", point.settings) for point in grid_points(space))
        return
    for name, axis in space.items():
        needed = _needed(space, axis)
        for value in axis.values():
            yield f"axis {name}", _with(needed, name, axis, value).settings


def _needed(space: Space, axis: AxisConfig) -> Point:
    """The smallest point at which an axis is used: only the axes that its `when` names have values."""
    point = Point({}, {})
    for name, wanted in axis.when.items():
        other = _needed(space, space[name])
        point = Point({**point.values, **other.values}, {**point.settings, **other.settings})
        point = _with(point, name, space[name], wanted[0] if isinstance(wanted, list) else wanted)
    return point


def _extended(point: Point, name: str, axis: AxisConfig) -> list[Point]:
    if not _takes_part(axis, point):
        return [point]
    return [_with(point, name, axis, value) for value in axis.values()]


def _takes_part(axis: AxisConfig, point: Point) -> bool:
    return all(
        point.values.get(name) in (wanted if isinstance(wanted, list) else [wanted])
        for name, wanted in axis.when.items()
    )


def _with(point: Point, name: str, axis: AxisConfig, value: Any) -> Point:
    listed = axis.values()
    settings = listed[value] if isinstance(listed, dict) else {name: value}
    return Point({**point.values, name: value}, {**point.settings, **settings})


def _drawn(name: str, axis: AxisConfig, trial: Trial) -> Any:
    values = list(axis.values())
    if axis.kind == "choice":  # by their places, because Optuna accepts only numbers and texts as choices
        return values[trial.suggest_categorical(name, range(len(values)))]
    if axis.kind == "randint":
        return trial.suggest_int(name, *values)
    return trial.suggest_float(name, *values, log=axis.kind == "loguniform")


def _distribution(axis: AxisConfig) -> BaseDistribution:
    values = list(axis.values())
    if axis.kind == "choice":
        return CategoricalDistribution(range(len(values)))
    if axis.kind == "randint":
        return IntDistribution(*values)
    low, high = values
    return FloatDistribution(low, high, log=axis.kind == "loguniform")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
