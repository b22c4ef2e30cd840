"""What a search may set: a base recipe, a space over its settings, how trials are chosen, stopped and tested."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.settings.section import Fraction, Role, Section, UserPath, is_among, names_of_roles
from pipelines.tracking.config import TrackingConfig
from pipelines.train.config import TrainConfig
from pipelines.transfer.config import TransferConfig
from t3d_core.errors import UserError

# What population based training may change in a run under way: neither its network nor its order of clips.
CHANGEABLE = ("optimizer", "augmentation", "label_smoothing")
# What a search gives each trial itself.
_RESERVED = ("seed", *names_of_roles(TrainConfig, {Role.PLACE}), *names_of_roles(TransferConfig, {Role.PLACE}))
_AXIS_NAME = re.compile(r"[\w\-. /]+", re.ASCII)  # MLflow takes these as the name of a tag
_METRICS = {"train": ("val/loss", "val/clip_top1", "val/clip_top5"), "transfer": ("val/", "check/", "probe/")}
NamedValues = dict[str, dict[str, Any]]
AXIS_KINDS = ("grid", "choice", "uniform", "loguniform", "randint")


class AxisConfig(Section):
    """The values that one setting takes; exactly one of grid, choice, uniform, loguniform, randint is given."""

    grid: NamedValues | list[Any] | None = None
    """Every one of these values (sampler grid). Named values, {NAME: {setting: value, ...}}, set several settings at
    once, and the axis then has a name of your own."""
    choice: NamedValues | list[Any] | None = None
    """One of these values, drawn (samplers random and tpe); named ones as in grid."""
    uniform: tuple[float, float] | None = None
    """A number between these two, drawn."""
    loguniform: tuple[PositiveFloat, PositiveFloat] | None = None
    """A number between these two whose logarithm is drawn."""
    randint: tuple[int, int] | None = None
    """A whole number from the first to the second, both among them, drawn."""
    when: dict[str, Any] = Field(default_factory=dict)
    """The axis takes part only where earlier axes have these values (one, or a list of them)."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> "AxisConfig":
        given = [kind for kind in AXIS_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise UserError(f"given {', '.join(given) or 'nothing'}, give one of {', '.join(AXIS_KINDS)}")
        values = getattr(self, given[0])
        if not values:
            raise UserError(f"{given[0]} has no values: give one at least")
        if self.is_range() and values[0] >= values[1]:
            raise UserError(f"{given[0]} {list(values)} must be [least, most]: exchange them")
        return self

    @property
    def kind(self) -> str:
        """Which of the five is given."""
        return next(kind for kind in AXIS_KINDS if getattr(self, kind) is not None)

    def is_range(self) -> bool:
        """Whether values are drawn from between two."""
        return self.kind in ("uniform", "loguniform", "randint")

    def values(self) -> NamedValues | list[Any]:
        """The values, or the two ends of a range."""
        given = getattr(self, self.kind)
        return list(given) if isinstance(given, tuple) else given

    def settings(self, name: str) -> set[str]:
        """The settings, by dotted name, that this axis of that name sets."""
        values = self.values()
        return {setting for named in values.values() for setting in named} if isinstance(values, dict) else {name}


class SamplerConfig(Section):
    """Which points of the space become trials."""

    kind: Literal["grid", "random", "tpe"] = "grid"
    """grid: all of them; random: drawn independently; tpe: drawn where earlier ones did well (Optuna)."""
    num_points: Annotated[PositiveInt, Role.RUNNING] = 20
    """Points that are drawn (random, tpe), each trained with every seed."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the drawing."""
    weigh_macs: bool = False
    """tpe: few multiply-adds count as well as accuracy, and neither alone (multi-objective)."""


class SchedulerConfig(Section):
    """Which trials end before their last epoch, or take over from others."""

    kind: Literal["none", "asha", "median", "pbt"] = "none"
    """asha: those outside the best 1/reduction_factor at epochs grace_epochs, grace_epochs * reduction_factor, ...;
    median: those below the median of the others' running means; pbt (population based training): none, but every
    interval_epochs the worst of a seed take over the weights of the best, and change their settings."""
    grace_epochs: PositiveInt = 1
    """asha, median: no trial ends before this epoch."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    """asha: of so many trials one goes on."""
    interval_epochs: PositiveInt = 1
    """pbt: epochs after which all wait for the last, and are compared."""
    share_replaced: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """pbt: so many of the worst take over from as many of the best."""
    share_drawn: Fraction = 0.25
    """pbt: of their settings so many are drawn anew; the others become 0.8 or 1.25 times the donor's, or of listed
    values the one before or after it."""


class BudgetConfig(Section):
    """What a search may cost; trials that are cut off go on when it is started again with more."""

    hours: PositiveFloat | None = None
    """By the clock, from each start on."""
    cpu_hours: PositiveFloat | None = None
    """CPUs that trials reserved, times how long."""
    gpu_hours: PositiveFloat | None = None
    """GPUs that trials reserved, times how long."""


class LimitsConfig(Section):
    """What a network may cost; a point beyond is rejected before it is trained."""

    max_gmacs: PositiveFloat | None = None
    """Multiply-adds of a clip in one forward pass, 1e9."""
    min_gmacs: PositiveFloat | None = None
    """As max_gmacs, for searches at equal cost."""
    max_parameters: PositiveFloat | None = None
    """Parameters, batch-norm statistics not among them."""


class TrialTestConfig(Section):
    """Every trained network is tested, in its trial, as jobs/evaluate.py does."""

    split: Literal["train", "val", "test"] = "test"
    """Split of the fold."""
    num_crops: Literal[1, 3, 10] = 1
    """As in evaluation."""
    num_clips: PositiveInt | None = None
    """As in evaluation."""


class TransferBeforeConfig(Section):
    """A transfer run before the trial, with the trial's network, clips and seed: one for all trials that are alike."""

    base: UserPath
    """Recipe of jobs/transfer.py."""
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

    job: Literal["train", "transfer"] = "train"
    """Which job a trial is."""
    base: UserPath
    """Recipe of that job, of which trials differ in their point and seed alone."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of all trials that differ from the base recipe, by dotted name."""
    space: dict[str, AxisConfig]
    """Setting (dotted name) or name of an axis of named values -> its values."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    """Every point is trained with each of these."""
    transfer_before: TransferBeforeConfig | None = None
    """Trials whose `init_from` is `transfer` start from the student of such a run."""
    metric: str | None = None
    """What a sampler and a scheduler look at, of those that a validation logs; none: val/clip_top1 (train),
    check/pair_accuracy (transfer); of one that ends in loss less is better."""
    sampler: SamplerConfig = SamplerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    limits: LimitsConfig = LimitsConfig()
    budget: Annotated[BudgetConfig, Role.RUNNING] = BudgetConfig()
    test: TrialTestConfig | None = None
    """Test every trained classifier; none: validation alone."""
    max_concurrent: Annotated[PositiveInt | None, Role.RUNNING] = None
    """Trials at once; none: as many as leave each a CPU for decoding."""
    max_failures: Annotated[int, Field(ge=0), Role.RUNNING] = 2
    """Times that a trial is started again, from its last checkpoint, after its process was lost."""
    register: Annotated[str | None, Role.PLACE] = None
    """Name under which the best trial's model is registered in MLflow."""
    alias: Annotated[str | None, Role.PLACE] = None
    """Alias that the registered version gets, such as champion."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder in which the search's own folder is made; on a cluster one that all nodes share."""
    name: Annotated[str | None, Role.PLACE] = None
    """Name of the search; the same name again goes on with it. None: a new name."""

    def watched_metric(self) -> str:
        """What is looked at."""
        return self.metric or {"train": "val/clip_top1", "transfer": "check/pair_accuracy"}[self.job]

    def is_more_better(self) -> bool:
        """Whether the metric is to grow."""
        return not self.watched_metric().endswith("loss")

    @model_validator(mode="after")
    def _parts_fit(self) -> "SearchConfig":
        if not self.space:
            raise UserError("space has no axis: name one setting to vary at least")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise UserError(f"seeds {list(self.seeds)} must be some, each once")
        is_grid = self.sampler.kind == "grid"
        for name, axis in self.space.items():
            if is_grid != (axis.kind == "grid"):
                raise UserError(
                    f"space.{name}: {axis.kind} is not for sampler {self.sampler.kind}, which "
                    f"{'takes every value: use grid' if is_grid else 'draws: use choice'}, or another sampler.kind"
                )
            self._check_axis(name, axis)
        if not self.watched_metric().startswith(_METRICS[self.job]):
            raise UserError(
                f"metric {self.metric!r} is not looked at in a {self.job} run: {', '.join(_METRICS[self.job])}"
            )
        if "seed" in self.settings:
            raise UserError("settings: seed is given by seeds")
        if self.job == "transfer" and (self.test or self.register or self.transfer_before):
            raise UserError("test, register and transfer_before are for classifiers: leave them out, or set job train")
        if self.alias is not None and self.register is None:
            raise UserError(f"alias {self.alias!r} needs the name of a registered model: add --register NAME")
        if self.sampler.weigh_macs and self.sampler.kind != "tpe":
            raise UserError(f"sampler.weigh_macs is for kind tpe, given {self.sampler.kind}")
        if self.scheduler.kind == "pbt":
            self._check_population()
        return self

    def _check_axis(self, name: str, axis: AxisConfig) -> None:
        if not _AXIS_NAME.fullmatch(name):
            raise UserError(f"space: an axis cannot be called {name!r}: use letters, digits and _ - . /")
        for setting in sorted(axis.settings(name)):
            if is_among(setting, _RESERVED):
                raise UserError(
                    f"space.{name}: {setting} is not varied by a search, which sets it itself: leave it out"
                )
        earlier = list(self.space)[: list(self.space).index(name)]
        for other, wanted in axis.when.items():
            if other not in earlier:
                raise UserError(
                    f"space.{name}.when: {other} is no earlier axis; these are: {', '.join(earlier) or 'none'}"
                )
            known = self.space[other]
            wanted_values = wanted if isinstance(wanted, list) else [wanted]
            missing = [value for value in wanted_values if value not in known.values()]
            if missing and not known.is_range():
                values = ", ".join(map(str, known.values()))
                raise UserError(f"space.{name}.when: {other} is never {missing[0]!r}; its values are: {values}")

    def _check_population(self) -> None:
        if self.sampler.kind == "tpe":
            raise UserError("scheduler pbt changes points while they learn, of which sampler tpe knows nothing: draw "
                             "them at random, or take a grid")  # fmt: skip
        for name, axis in self.space.items():
            fixed = sorted(each for each in axis.settings(name) if each.partition(".")[0] not in CHANGEABLE)
            if fixed:
                raise UserError(
                    f"space.{name}: scheduler pbt changes settings while a network learns, which {fixed[0]} cannot: "
                    f"vary settings of {', '.join(CHANGEABLE)} alone, or choose another scheduler"
                )
