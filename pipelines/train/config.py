"""What can be set when a classifier is trained; defaults are the paper's (4.4)."""

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from pipelines.clips.config import AugmentationConfig, ClipConfig
from pipelines.networks.config import ModelConfig
from pipelines.prepare.config import DataConfig
from pipelines.settings.section import Address, Fraction, Role
from pipelines.training.config import RunConfig, ScheduleConfig, check_inflation
from t3d_core.errors import UserError


class TrainDataConfig(DataConfig):
    """Which prepared rows training reads: those of split `train`, validating on split `val`."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Where the fold has no split `val`: share of the source videos of `train` that validate instead."""
    class_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training rows of every class that is trained on, the same rows in every run (paper Table 8: half of
    Kinetics, 0.5)."""


class TrainAugmentationConfig(AugmentationConfig):
    """What is changed at random in the clips, and in their labels."""

    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Two clips are laid over each other, with a weight from Beta(x, x), labels too; 0: off. With cutmix_alpha, too,
    each micro-batch takes one of the two."""
    cutmix_alpha: Annotated[float, Field(ge=0)] = 0.0
    """A rectangle of one clip is put into another, its area from Beta(x, x), labels by area; 0: off."""


class TrainConfig(RunConfig):
    """Train a video classifier, from scratch or from given weights (paper 4.4)."""

    FIRST_SETTINGS = (
        "data.shards",
        "data.fold",
        "name",
        "model.kind",
        "init_from",
        "epochs",
        "global_batch_size",
        "optimizer.lr",
        "scaling.num_workers",
        "scaling.use_gpu",
    )

    data: TrainDataConfig
    model: ModelConfig | None = None
    """The network; none: the one that `init_from` describes."""
    clip: ClipConfig | None = ClipConfig()  # type: ignore[assignment]
    """How clips are taken; none: as `init_from` describes."""
    global_batch_size: PositiveInt = 64
    """Clips a step, over all workers (paper 4.4)."""
    epochs: PositiveInt = 200
    """Passes over the training rows (paper 4.4)."""
    schedule: ScheduleConfig = ScheduleConfig(kind="plateau")
    augmentation: TrainAugmentationConfig = TrainAugmentationConfig()
    label_smoothing: Fraction = 0.0
    """Share of the label that is spread over all classes, in training."""
    folds: Annotated[tuple[PositiveInt, ...], Role.PLACE] = ()
    """Train one network for each of these folds, one after another, as NAME-fold1, ...; `{fold}` in init_from and
    register is the fold's number. None: for data.fold alone."""
    freeze_backbone: bool = False
    """Train the linear classifier alone; the rest keeps the weights and statistics of init_from (TSN, paper 4.6)."""
    init_from: Address | None = None
    """Weights to start from: a file, a checkpoint or run folder, the id of an MLflow run, runs:/... or models:/...;
    none: from scratch."""
    inflate_from: Address | None = None
    """ImageNet 2D weights to start from instead, repeated along time: densenet121, densenet169, resnet18, resnet34,
    resnet50 or googlenet (torchvision's download), or a file with such a state_dict. A file must take clips normalised
    by ImageNet's mean and std, which torchvision's own file of googlenet does not."""
    replace_head: bool = False
    """Start with a new head where the classes of `init_from` are others; false: that is an error."""
    register: Annotated[str | None, Role.PLACE] = None
    """Name under which the trained model is registered in MLflow."""
    alias: Annotated[str | None, Role.PLACE] = None
    """Alias that the registered version gets, such as champion."""

    @model_validator(mode="after")
    def _network_is_known(self) -> "TrainConfig":
        if self.init_from is None and (self.model is None or self.clip is None):
            raise UserError("model and clip can be none only when init_from names weights that describe them")
        if self.init_from is not None and self.inflate_from is not None:
            raise UserError("init_from and inflate_from both name weights to start from: give one of them")
        if self.freeze_backbone and self.init_from is None:
            raise UserError("freeze_backbone keeps the weights of another run: add --init_from WEIGHTS")
        if self.freeze_backbone and self.precise_bn_steps:
            raise UserError(
                "precise_bn_steps measures the statistics that freeze_backbone keeps: leave one of them out"
            )
        if self.folds and self.name is None:
            raise UserError("folds makes one run a fold, named after this one: add --name NAME")
        if self.replace_head and self.init_from is None:
            raise UserError("replace_head needs the weights whose head it replaces: add --init_from WEIGHTS")
        check_inflation(self.inflate_from, self.clip)
        if self.alias is not None and self.register is None:
            raise UserError(f"alias {self.alias!r} needs the name of a registered model: add --register NAME")
        return self


class ResolvedTrainConfig(TrainConfig):
    """A training whose network and clips are known: they were given, or `init_from` describes them."""

    model: ModelConfig
    """The network."""
    clip: ClipConfig = ClipConfig()
    """How clips are taken."""
    # Once more: a metaclass of pydantic's has a method of this name, which a subclass would take for the default.
    register: Annotated[str | None, Role.PLACE] = None
    """Name under which the trained model is registered in MLflow."""


def resolve(config: TrainConfig, *, model: ModelConfig | None, clip: ClipConfig | None) -> ResolvedTrainConfig:
    """Fill in the network and the clips that are left to weights.

    Raises:
        UserError: one of them is not known.
    """
    if model is None or clip is None:
        raise UserError("model and clip are left to weights: write them into the recipe, or into settings")
    return ResolvedTrainConfig.model_validate({**dict(config), "model": model, "clip": clip})
