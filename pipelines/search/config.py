"""What a search may set: a base recipe, a space over its settings, how trials are chosen, stopped and tested."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.baseline.config import BaselineConfig
from pipelines.settings.section import Fraction, Role, Section, UserPath, is_among, names_of_roles
from pipelines.tracking.config import TrackingConfig
from pipelines.train.config import TrainConfig
from pipelines.transfer.config import TransferConfig
from t3d_core.errors import UserError

# What population based training may change while a run trains: neither its network nor its order of clips.
CHANGEABLE = ("optimizer", "augmentation", "label_smoothing")
# These of the optimiser decide which groups of parameters it has, and with them what its state is of.
_GROUPS = ("kind", "decay_norms_and_biases", "head_lr_scale", "layer_decay")
_FIXED = tuple(f"optimizer.{name}" for name in _GROUPS)
# What the search itself sets for each trial.
_RESERVED = (
    "seed",
    *names_of_roles(TrainConfig, {Role.PLACE}),
    *names_of_roles(TransferConfig, {Role.PLACE}),
    *names_of_roles(BaselineConfig, {Role.PLACE}),
)
_AXIS_NAME = re.compile(r"[\w\-. /]+", re.ASCII)  # MLflow takes these as the name of a tag
_TRANSFER_NAME = re.compile(r"[\w-]+", re.ASCII)  # part of a folder's name
# Settings that make repetitions of a point, such as its folds, and no other point.
REPLICATES = names_of_roles(TrainConfig, {Role.REPLICATE})
_METRICS = {
    "train": ("val/loss", "val/clip_top1", "val/clip_top5"),
    "transfer": ("val/", "check/", "probe/"),
    "baseline": ("test/",),
}
_USUAL_METRIC = {"train": "val/clip_top1", "transfer": "check/pair_accuracy", "baseline": "test/video_top1"}
NamedValues = dict[str, dict[str, Any]]
AXIS_KINDS = ("grid", "choice", "uniform", "loguniform", "randint")


class AxisConfig(Section):
    """The values that one setting takes; give exactly one of grid, choice, uniform, loguniform, randint."""

    grid: NamedValues | list[Any] | None = None
    """Every one of these values is used (sampler grid). Named values, {NAME: {setting: value, ...}}, set several
    settings at once; you then choose the name of the axis."""
    choice: NamedValues | list[Any] | None = None
    """One of these values is drawn (samplers random and tpe). They may have names, as in grid."""
    uniform: tuple[float, float] | None = None
    """A number between these two is drawn."""
    loguniform: tuple[PositiveFloat, PositiveFloat] | None = None
    """A number between these two is drawn, uniformly in its logarithm."""
    randint: tuple[int, int] | None = None
    """A whole number from the first to the second is drawn, both included."""
    when: dict[str, Any] = Field(default_factory=dict)
    """The axis is used only where earlier axes have these values (one, or a list of them)."""

    @model_validator(mode="after")
    def _has_one_kind(self) -> "AxisConfig":
        given = [kind for kind in AXIS_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise UserError(f"given {', '.join(given) or 'nothing'}: give exactly one of {', '.join(AXIS_KINDS)}")
        values = getattr(self, given[0])
        if not values:
            raise UserError(f"{given[0]} has no values: give at least one")
        if self.is_range() and values[0] >= values[1]:
            raise UserError(f"{given[0]} {list(values)} must be [least, most]: swap them")
        return self

    @property
    def kind(self) -> str:
        """Which of the five is given."""
        return next(kind for kind in AXIS_KINDS if getattr(self, kind) is not None)

    def is_range(self) -> bool:
        """Whether values are drawn from a range."""
        return self.kind in ("uniform", "loguniform", "randint")

    def values(self) -> NamedValues | list[Any]:
        """The values, or the two ends of a range."""
        given = getattr(self, self.kind)
        return list(given) if isinstance(given, tuple) else given

    def settings(self, name: str) -> set[str]:
        """The dotted names of the settings that this axis sets, if it is called `name`."""
        values = self.values()
        return {setting for named in values.values() for setting in named} if isinstance(values, dict) else {name}


class SamplerConfig(Section):
    """Which points of the space become trials."""

    kind: Literal["grid", "random", "tpe"] = "grid"
    """How points are chosen. grid: all of them; random: drawn independently; tpe: drawn where earlier ones did well
    (Optuna)."""
    num_points: Annotated[PositiveInt, Role.RUNNING] = 20
    """Number of points to draw (random, tpe); each is trained with every seed."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the drawing."""
    weigh_macs: bool = False
    """Search for few multiply-adds as well as for accuracy (multi-objective, tpe only)."""


class SchedulerConfig(Section):
    """Which trials end before their last epoch, or take over from others."""

    kind: Literal["none", "asha", "median", "pbt"] = "none"
    """Which trials are stopped early. asha: those outside the best 1/reduction_factor at epochs grace_epochs,
    grace_epochs * reduction_factor, ...; median: those below the median of the others' running means; pbt (population
    based training): none. Under pbt, every interval_epochs, the worst trials of a seed take the weights of the best
    and change their settings."""
    grace_epochs: PositiveInt = 1
    """No trial is stopped before this epoch (asha, median)."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    """One of this many trials continues at each stage (asha)."""
    interval_epochs: PositiveInt = 1
    """Epochs after which all trials wait for the slowest and are compared (pbt)."""
    share_replaced: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of the trials that is replaced: the worst take the weights of as many of the best (pbt)."""
    share_drawn: Fraction = 0.25
    """Share of a replaced trial's settings that is drawn anew (pbt). The others become 0.8 or 1.25 times the donor's
    value; in a list of values, the one before or after it."""


class BudgetConfig(Section):
    """What a search may cost; interrupted trials resume when it is started again with a larger budget."""

    hours: PositiveFloat | None = None
    """Hours by the clock, counted from each start. By default there is no limit."""
    cpu_hours: PositiveFloat | None = None
    """CPU-hours that trials may reserve in total. By default there is no limit."""
    gpu_hours: PositiveFloat | None = None
    """GPU-hours that trials may reserve in total. By default there is no limit."""


class LimitsConfig(Section):
    """What a network may cost; a point beyond these limits is rejected before it is trained."""

    max_gmacs: PositiveFloat | None = None
    """Most multiply-adds of a clip in one forward pass, in 1e9. By default there is no limit."""
    min_gmacs: PositiveFloat | None = None
    """Fewest multiply-adds of a clip in one forward pass, in 1e9, for searches at equal cost. By default there is no
    limit."""
    max_parameters: PositiveFloat | None = None
    """Most parameters, without batch-norm statistics. By default there is no limit."""


class TrialTestConfig(Section):
    """Test every trained network at the end of its trial, as jobs/evaluate.py does."""

    split: Literal["train", "val", "test"] = "test"
    """Split of the fold to test on."""
    num_crops: Literal[1, 3, 10] = 1
    """Crops of each clip, as in evaluation."""
    num_clips: PositiveInt | None = None
    """Clips of each video, as in evaluation. By default all that do not overlap."""


class TransferBeforeConfig(Section):
    """A transfer run before the trials, with their network, clips and seed; trials that agree in these share one."""

    base: UserPath
    """Recipe of jobs/transfer.py for that run."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from that recipe, by dotted name."""


class SearchConfig(Section):
    """Train one network for every point of a space and every seed, and compare them."""

    FIRST_SETTINGS = (
        "base",
        "name",
        "seeds",
        "sampler.kind",
        "sampler.num_points",
        "scheduler.kind",
        "budget.hours",
        "max_concurrent",
        "metric",
        "register",
    )

    job: Literal["train", "transfer", "baseline"] = "train"
    """Which job a trial runs. A baseline is a linear classifier on a frozen 2D network's features, or on the shape and
    length of videos; it is tested as networks are, and stands in their table (`compare`)."""
    base: UserPath
    """Recipe of the job that every trial runs; trials differ from it only in their point and seed."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from the base recipe in all trials, by dotted name."""
    space: dict[str, AxisConfig]
    """The axes: a setting's dotted name, or the name of an axis of named values, with its values."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    """Every point is trained with each of these seeds."""
    transfer_before: dict[str, TransferBeforeConfig] | None = None
    """Transfer runs by name. The student of NAME is the start of all trials with `init_from: transfer/NAME`, and the 2D
    twin of one with objective frame_regression that of all with `inflate_from: transfer/NAME`; other transfers may
    start from the twin too. By default there is none."""
    metric: str | None = None
    """Metric by which trials are compared, one that a validation logs. By default val/clip_top1 (train), or for
    transfers probe/linear_top1 if the base recipe has a probe, else check/pair_accuracy or, without pairs,
    check/key_rank; for baselines test/video_top1. Less is better if its name ends in loss, else more."""
    sampler: SamplerConfig = SamplerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    limits: LimitsConfig = LimitsConfig()
    budget: Annotated[BudgetConfig, Role.RUNNING] = BudgetConfig()
    test: TrialTestConfig | None = None
    """Test every trained classifier. By default trials are only validated."""
    max_concurrent: Annotated[PositiveInt | None, Role.RUNNING] = None
    """Trials that run at the same time. By default as many as fit, with a CPU for decoding each."""
    max_failures: Annotated[int, Field(ge=0), Role.RUNNING] = 2
    """How often a trial is restarted from its last checkpoint after its process was lost."""
    register: Annotated[str | None, Role.PLACE] = None
    """Name under which the best trial's model is registered in MLflow. By default it is not."""
    alias: Annotated[str | None, Role.PLACE] = None
    """Alias of the registered version, such as champion."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder in which the search makes its own folder; on a cluster, one that all nodes share."""
    name: Annotated[str | None, Role.PLACE] = None
    """Name of the search; giving the same name again resumes it. By default a new name."""

    def watched_metric(self) -> str:
        """The metric by which trials are compared; `make_plan` has set it where the base recipe has a probe."""
        return self.metric or _USUAL_METRIC[self.job]

    def is_more_better(self) -> bool:
        """Whether a larger value of the metric is better."""
        return not self.watched_metric().endswith("loss")

    @model_validator(mode="after")
    def _parts_fit(self) -> "SearchConfig":
        if not self.space:
            raise UserError("space has no axis: name at least one setting to vary")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise UserError(f"seeds {list(self.seeds)} must name at least one seed, and each only once")
        is_grid = self.sampler.kind == "grid"
        for name, axis in self.space.items():
            if is_grid != (axis.kind == "grid"):
                raise UserError(
                    f"space.{name}: {axis.kind} does not fit sampler {self.sampler.kind}, which "
                    f"{'takes every value: use grid' if is_grid else 'draws: use choice'}, or another sampler.kind"
                )
            self._check_axis(name, axis)
        if not self.watched_metric().startswith(_METRICS[self.job]):
            raise UserError(
                f"metric {self.metric!r} is not logged by validations of a {self.job} run: use one of "
                f"{', '.join(_METRICS[self.job])}"
            )
        if "seed" in self.settings:
            raise UserError("settings: the seed of a trial comes from seeds: leave seed out")
        if self.job != "train" and (self.test or self.register or self.transfer_before):
            raise UserError("test, register and transfer_before are for networks that classify: leave them out (a "
                            "baseline is always tested, on data.split), or set job train")  # fmt: skip
        if self.job == "baseline" and (
            self.scheduler.kind != "none" or self.limits != LimitsConfig() or self.sampler.weigh_macs
        ):
            raise UserError(
                "scheduler, limits and sampler.weigh_macs are for networks, and a baseline has none: leave them out"
            )
        for name in self.transfer_before or ():
            if not _TRANSFER_NAME.fullmatch(name):
                raise UserError(f"transfer_before: {name!r} is no name: use letters, digits, _ and -")
        if self.alias is not None and self.register is None:
            raise UserError(f"alias {self.alias!r} needs the name of a registered model: add --register NAME")
        if self.sampler.weigh_macs and self.sampler.kind != "tpe":
            raise UserError(f"sampler.weigh_macs needs sampler.kind tpe, given {self.sampler.kind}")
        if self.scheduler.kind == "pbt":
            self._check_population()
        return self

    def _check_axis(self, name: str, axis: AxisConfig) -> None:
        if not _AXIS_NAME.fullmatch(name):
            raise UserError(f"space: an axis cannot be called {name!r}: use letters, digits, spaces and _ - . /")
        for setting in sorted(axis.settings(name)):
            if is_among(setting, _RESERVED):
                raise UserError(
                    f"space.{name}: {setting} is not varied by a search, which sets it itself: leave it out"
                )
        earlier = list(self.space)[: list(self.space).index(name)]
        for other, wanted in axis.when.items():
            if other not in earlier:
                raise UserError(
                    f"space.{name}.when: {other} is not an earlier axis; those are: {', '.join(earlier) or 'none'}"
                )
            known = self.space[other]
            wanted_values = wanted if isinstance(wanted, list) else [wanted]
            missing = [value for value in wanted_values if value not in known.values()]
            if missing and not known.is_range():
                values = ", ".join(map(str, known.values()))
                raise UserError(f"space.{name}.when: {other} is never {missing[0]!r}; its values are: {values}")

    def _check_population(self) -> None:
        if self.sampler.kind == "tpe":
            raise UserError("scheduler pbt changes settings during training, which sampler tpe cannot follow: set "
                             "sampler.kind to random or grid")  # fmt: skip
        for name, axis in self.space.items():
            fixed = sorted(
                each for each in axis.settings(name) if each.partition(".")[0] not in CHANGEABLE or each in _FIXED
            )
            if fixed:
                raise UserError(
                    f"space.{name}: scheduler pbt changes settings during training, and {fixed[0]} cannot change then: "
                    f"vary only settings of {', '.join(CHANGEABLE)} (but not {', '.join(_FIXED)}), or choose another "
                    "scheduler"
                )
