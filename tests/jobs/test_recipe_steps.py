"""Every training recipe makes one step: on 16 tiny clips, by its own protocol, with a tiny net of its kind."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from pipelines.networks.config import DenseNet3DConfig, ModelConfig, T3DConfig
from pipelines.networks.weights import card_of
from pipelines.settings.command_line import load_config
from pipelines.settings.recipe import to_yaml
from pipelines.shards.index import load_index
from pipelines.tracking.config import TrackingConfig
from pipelines.train.config import TrainConfig
from pipelines.train.job import run_train
from t3d_core.models import ModelKind, build_model
from t3d_core.training.checkpoint import save_weights
from t3d_core.training.optimization import build_sgd
from t3d_core.training.tasks import ClassificationTask
from t3d_core.training.weights_card import WeightsCard, read_card

RECIPES = sorted((Path(__file__).parents[2] / "jobs" / "recipes" / "train").glob("*.yaml"))
TRANSFERS = {path.stem for path in (RECIPES[0].parents[1] / "transfer").glob("*.yaml")}
TINY = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 24, "bn_size": 2}


def load(recipe: Path, *arguments: str) -> TrainConfig:
    return load_config(TrainConfig, argv=["--recipe", str(recipe), *arguments], quickstart=recipe, program="train")


def tiny_model(model: ModelConfig) -> ModelConfig:
    """The kind itself where it comes in any size, or else T3D; kinds of one size make their step below."""
    return (model if isinstance(model, DenseNet3DConfig) else T3DConfig(kind="t3d_121")).model_copy(update=TINY)


def shrunk(config: TrainConfig, **given: Any) -> TrainConfig:
    """The recipe's run in little: one step in this process, for the 29 training rows do not fill two."""
    changes = {
        "model": tiny_model(config.model),
        "clip": config.clip.model_copy(update={"num_frames": 16, "crop_size": 32}),
        "global_batch_size": 16,
        "epochs": 1,
        "schedule": config.schedule.model_copy(update={"warmup_epochs": min(config.schedule.warmup_epochs, 0.5)}),
        "folds": config.folds[:1],
        "precise_bn_steps": min(config.precise_bn_steps, 1),
        "scaling": {"num_workers": 0},
        "name": "step",
    }
    # Validated anew: a recipe in little keeps the rules of all recipes.
    return TrainConfig.model_validate(config.model_dump() | changes | given)


class Steps:
    """Runs a recipe's one step, once for all recipes that are the same in little."""

    def __init__(self, shards: Path, root: Path) -> None:
        self.shards, self.root = shards, root
        self.class_names = load_index([shards], fold=1, splits=["train"]).class_names
        self.done: dict[str, tuple[Path, Path | None]] = {}

    def run(self, config: TrainConfig) -> tuple[Path, Path | None]:
        """Give the weights file of the run, and the one that it started from."""
        data = config.data.model_dump() | {"shards": [self.shards], "prepare": None}
        tracking = TrackingConfig(uri=f"sqlite:///{self.root}/mlflow.db")
        config = shrunk(config, data=data, tracking=tracking)
        key = to_yaml(config.model_copy(update={"init_from": None}))
        if key not in self.done:
            storage = self.root / f"run{len(list(self.root.glob('run*')))}"
            initial = self._initial(config, storage) if config.init_from else None
            init_from = initial and str(initial.with_name("fold{fold}.safetensors") if config.folds else initial)
            run_train(config.model_copy(update={"storage": storage, "init_from": init_from}))
            folder = storage / ("step-fold1" if config.folds else "step")
            self.done[key] = folder / "model.safetensors", initial
        return self.done[key]

    def _initial(self, config: TrainConfig, storage: Path) -> Path:
        """A transfer's student, weights of another data set, or where the recipe keeps the head, of this one."""
        class_names = ("run", "jump") if config.replace_head else self.class_names
        if Path(config.init_from or "").name in TRANSFERS:
            class_names = ()
        path = storage / "initial" / "fold1.safetensors"
        path.parent.mkdir(parents=True)
        net = build_model(config.model.kind, num_classes=len(class_names), **config.model.arguments())
        save_weights(net, path, card=card_of(config.model, config.clip, class_names=class_names))
        return path

    def card(self, config: TrainConfig) -> WeightsCard:
        """What the weights are to say of themselves."""
        config = shrunk(config)
        return card_of(config.model, config.clip, class_names=self.class_names)


@pytest.fixture(scope="module")
def steps(synthetic_shards, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Steps(synthetic_shards, tmp_path_factory.mktemp("recipes"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_makes_one_step(recipe, steps):
    config = load(recipe)
    weights, initial = steps.run(config)
    card = read_card(weights)
    assert replace(card, run_id=None, lineage=(), mirrored_classes=()) == steps.card(config)
    assert (card.lineage[-1].datasets, card.lineage[-1].fold) == (("synthetic",), 1)
    after = load_file(weights)
    assert all(tensor.isfinite().all() for tensor in after.values())
    if initial is None:
        return
    before = load_file(initial)
    same = {name for name, tensor in after.items() if name in before and torch.equal(tensor, before[name])}
    moved = {name.partition(".")[0] for name in after.keys() - same}
    assert moved == ({"classifier"} if config.freeze_backbone else {"features", "classifier"})


@pytest.mark.heavy
@pytest.mark.parametrize("kind", get_args(ModelKind))
def test_every_net_makes_one_step_by_the_optimiser_of_the_scratch_recipes(kind):
    """On the smallest clips there are for it; the widths of Table 1 are those of a step of hours."""
    configs = [load(recipe, "--model.kind", kind) for recipe in RECIPES if recipe.stem.startswith("scratch_")]
    [model] = {to_yaml(config.model): config.model for config in configs}.values()
    [optimizer] = {to_yaml(config.optimizer): config.optimizer for config in configs}.values()
    torch.manual_seed(0)
    shrinkable = tiny_model(model) if isinstance(model, DenseNet3DConfig) else model
    net = build_model(kind, num_classes=4, **shrinkable.arguments())
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    sgd = build_sgd(
        net.parameters(),
        lr=optimizer.lr,
        momentum=optimizer.momentum,
        is_nesterov=optimizer.nesterov,
        weight_decay=optimizer.weight_decay,
    )
    clip_BCTHW = torch.randn(4, 3, net.min_num_frames, net.min_size, net.min_size)
    output = ClassificationTask(net)(net, {"clip_BCTHW": clip_BCTHW, "label_B": torch.arange(4)})
    output.loss.backward()
    sgd.step()
    assert output.loss.isfinite()
    assert [name for name, parameter in net.named_parameters() if torch.equal(parameter, before[name])] == []
