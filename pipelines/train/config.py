"""What can be set when a classifier is trained; defaults are the paper's (4.4)."""

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from pipelines.clips.config import AugmentationConfig, ClipConfig
from pipelines.networks.config import ModelConfig
from pipelines.prepare.config import DataConfig
from pipelines.settings.section import ADDED, Address, Fraction, Role
from pipelines.training.config import RunConfig, ScheduleConfig, check_inflation
from t3d_core.errors import UserError
from t3d_core.training.mirrored_labels import partners


class TrainDataConfig(DataConfig):
    """Which prepared rows training reads: those of split `train`, validating on split `val`."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the source videos of split `train` that validate when the fold has no split `val`."""
    # Not in a run's fingerprint: `run.json` holds the rows themselves, and older runs, which lack it, can be resumed.
    holdout_seed: Annotated[int, Field(ge=0), Role.RUNNING] = 0
    """Seed of the choice of these source videos: runs with other `seed`s validate on the same ones (ours). Older runs
    held out by `seed`."""
    class_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training rows of every class to train on, the same rows in every run (paper Table 8: 0.5 of
    Kinetics)."""
    num_sources: Annotated[PositiveInt | None, ADDED] = None
    """Number of source videos (groups: people, scenes) of split `train` to train on, for results with few labels: the
    same ones for every seed. The folds begin at different ones, so that all are trained on equally often, as far as
    their number allows; more sources include fewer. Classes that these lack are not learned. By default all (paper)."""


class TrainAugmentationConfig(AugmentationConfig):
    """What is changed at random in the clips, and in their labels."""

    flip: bool | Annotated[dict[str, str], Field(min_length=1)] = True  # type: ignore[assignment]
    """Mirror half of the clips, left to right (paper 4.4). A map, such as {move_left: move_right}, does so too, and
    gives a mirrored clip of either class the label of the other; evaluation then refuses num_crops 10, half of
    whose crops are mirrored (Paper: not in it)."""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Mix two clips and their labels with a weight drawn from Beta(x, x); 0 turns it off. If cutmix_alpha is set too,
    each micro-batch uses one of the two."""
    cutmix_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Put a rectangle of one clip into another, with an area from Beta(x, x) and labels by area; 0 turns it off."""

    @model_validator(mode="after")
    def _sides_are_pairs(self) -> "TrainAugmentationConfig":
        partners(self.sides())
        return self

    def sides(self) -> dict[str, str]:
        """Classes that change sides in a mirrored clip; none where `flip` is no map."""
        return {} if isinstance(self.flip, bool) else self.flip


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
    """The network. By default, or with none, it is the one that `init_from` describes."""
    clip: ClipConfig | None = ClipConfig()  # type: ignore[assignment]
    """How clips are taken. With none they are taken as `init_from` describes."""
    global_batch_size: PositiveInt = 64
    """Clips a step, over all workers (paper 4.4)."""
    epochs: PositiveInt = 200
    """Passes over the training rows (paper 4.4)."""
    schedule: ScheduleConfig = ScheduleConfig(kind="plateau")
    augmentation: TrainAugmentationConfig = TrainAugmentationConfig()
    label_smoothing: Fraction = 0.0
    """Share of the label that is spread over all classes in training."""
    folds: Annotated[tuple[PositiveInt, ...], Role.PLACE] = ()
    """Folds to train one network each for, one after another, as runs NAME-fold1 and so on. In init_from and register,
    `{fold}` becomes the fold's number. By default only data.fold is trained."""
    freeze_backbone: bool = False
    """Train only the linear classifier; the rest keeps the weights and statistics of init_from (TSN, paper 4.6). With
    precise_bn_steps the statistics are measured on the training clips once, before the first step."""
    freeze_backbone_epochs: Annotated[int, Field(ge=0), ADDED] = 0
    """Epochs at the start in which only the linear classifier learns, as with freeze_backbone; then all weights do.
    By default all learn from the first step (paper)."""
    init_from: Address | None = None
    """Weights to start from: a file, a checkpoint or run folder, runs:/..., models:/... or the id of an MLflow run. By
    default training starts from random weights."""
    inflate_from: Address | None = None
    """ImageNet 2D weights to start from, repeated along time: a network's name or a file with its state_dict. Names:
    densenet121, densenet169, resnet18, resnet34, resnet50 and googlenet, which torchvision downloads. A file must take
    clips normalised by ImageNet's mean and std, which torchvision's own file of googlenet does not."""
    replace_head: bool = False
    """Start with a new head when `init_from` has other classes; with false, other classes are an error."""
    register: Annotated[str | None, Role.PLACE] = None
    """Name under which the trained model is registered in MLflow. By default it is not registered."""
    alias: Annotated[str | None, Role.PLACE] = None
    """Alias of the registered version, such as champion."""

    @model_validator(mode="after")
    def _network_is_known(self) -> "TrainConfig":
        if self.init_from is None and (self.model is None or self.clip is None):
            raise UserError(
                "model and clip can be none only when init_from names weights that describe them: add --init_from "
                "WEIGHTS, or set model and clip"
            )
        if self.init_from is not None and self.inflate_from is not None:
            raise UserError("init_from and inflate_from both name weights to start from: give one of them")
        if self.freeze_backbone and self.init_from is None:
            raise UserError("freeze_backbone true keeps the weights of another run: add --init_from WEIGHTS")
        self._check_frozen_epochs()
        if self.folds and self.name is None:
            raise UserError(
                f"folds {list(self.folds)} makes one run a fold, NAME-fold{self.folds[0]} and so on: add --name NAME"
            )
        if self.replace_head and self.init_from is None:
            raise UserError("replace_head true needs the weights whose head it replaces: add --init_from WEIGHTS")
        check_inflation(self.inflate_from, self.clip)
        if self.alias is not None and self.register is None:
            raise UserError(f"alias {self.alias!r} needs the name of a registered model: add --register NAME")
        return self

    def _check_frozen_epochs(self) -> None:
        num_epochs = self.freeze_backbone_epochs
        if not num_epochs:
            return
        if self.freeze_backbone:
            raise UserError(
                f"freeze_backbone_epochs {num_epochs} is a part of the run, and freeze_backbone true all of it: leave "
                "one of them out"
            )
        if self.init_from is None and self.inflate_from is None:
            raise UserError(
                f"freeze_backbone_epochs {num_epochs} keeps the weights of another run: add --init_from WEIGHTS or "
                "--inflate_from WEIGHTS"
            )
        if num_epochs >= self.epochs:
            raise UserError(
                f"freeze_backbone_epochs {num_epochs} must be less than epochs {self.epochs}: lower it, or train the "
                "head alone with --freeze_backbone true"
            )


class ResolvedTrainConfig(TrainConfig):
    """A training run whose network and clips are known: the user gave them, or `init_from` describes them."""

    model: ModelConfig
    """The network."""
    clip: ClipConfig = ClipConfig()
    """How clips are taken."""
    # Once more: a metaclass of pydantic's has a method of this name, which a subclass would take for the default.
    register: Annotated[str | None, Role.PLACE] = None
    """Name under which the trained model is registered in MLflow. By default it is not registered."""


def resolve(config: TrainConfig, *, model: ModelConfig | None, clip: ClipConfig | None) -> ResolvedTrainConfig:
    """Fill in the network and the clips that the weights describe.

    Raises:
        UserError: one of them is not known.
    """
    if model is None or clip is None:
        raise UserError("model and clip are left to weights: write them into the recipe, or into settings")
    return ResolvedTrainConfig.model_validate({**dict(config), "model": model, "clip": clip})
