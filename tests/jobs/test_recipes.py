"""Every recipe keeps what it says: it parses, what it names exists, its values are the paper's, its net fits."""

import itertools
import re
import runpy
import shlex
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml

import pipelines.settings.job
from pipelines.baseline.config import BaselineConfig
from pipelines.clips.config import ClipConfig
from pipelines.evaluate.config import EvaluateConfig
from pipelines.networks.config import ModelConfig
from pipelines.networks.weights import card_of, check_network
from pipelines.search.config import SearchConfig
from pipelines.settings.command_line import load_config
from pipelines.settings.section import flatten
from pipelines.train.config import TrainConfig
from t3d_core.models import ModelKind, build_model
from t3d_core.models.cost import count_parameters, saved_bytes

REPO = Path(__file__).parents[2]
RECIPES = REPO / "jobs" / "recipes"
INDEX = RECIPES / "README.md"
ALL = sorted(RECIPES.rglob("*.yaml"))
TRAIN = sorted((RECIPES / "train").glob("*.yaml"))
TRANSFER = sorted((RECIPES / "transfer").glob("*.yaml"))
SCRATCH = [path for path in TRAIN if path.stem.startswith("scratch_")]
REFERENCES = ["paper", "modern"]
GIB = 2**30


def short_name(recipe: Path) -> str:
    return f"{recipe.parent.name}/{recipe.stem}"


def every(recipes: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recipe", recipes, ids=short_name)


@cache
def config_class(stage: str) -> Any:
    """The class that jobs/STAGE.py gives to `run_job`, for recipes in the folder STAGE."""
    if stage == "baseline":  # run by searches alone
        return BaselineConfig
    if stage == "evidence":
        return SearchConfig
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.settings.job, "run_job", lambda config_class, *_, **__: found.append(config_class))
        runpy.run_path(str(REPO / "jobs" / f"{stage}.py"), run_name="__main__")
    return found[0]


def load(recipe: Path, *arguments: str) -> Any:
    stage = recipe.parent.name
    argv = ["--recipe", str(recipe), *arguments]
    return load_config(config_class(stage), argv=argv, quickstart=recipe, program=stage)


def load_train(stem: str) -> TrainConfig:
    return load(RECIPES / "train" / f"{stem}.yaml")


# ---- what a recipe says of itself


@every(ALL)
def test_every_recipe_parses_and_says_at_its_top_what_it_is(recipe):
    load(recipe)
    assert recipe.read_text().startswith("# ")


def test_the_tables_of_the_readme_list_exactly_the_recipes_there_are():
    listed = {name: re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE) for name, text in sections().items()}
    there = {
        folder.name: [path.name for path in folder.glob("*.yaml")] for folder in RECIPES.iterdir() if folder.is_dir()
    }
    assert {name: sorted(recipes) for name, recipes in listed.items() if recipes} == {
        name: sorted(recipes) for name, recipes in there.items()
    }


def sections() -> dict[str, str]:
    """Heading -> text of the README of the recipes."""
    parts = re.split(r"^#+ (.*)$", INDEX.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def comments(recipe: Path) -> str:
    return "\n".join(re.findall(r"(?:^|\s)# ?(.*)$", recipe.read_text(), re.MULTILINE))


def texts() -> list[tuple[str, Path, str]]:
    """What is written about recipes: where it stands, the folder that bare file names are of, the text."""
    written = [(short_name(path), path.parent, comments(path)) for path in ALL]
    return written + [(f"README, {name}", RECIPES / name, text) for name, text in sections().items()]


def test_every_file_that_is_named_exists():
    for where, folder, text in texts():
        for name in re.findall(r"[\w./]+\.yaml", text):
            bases = [REPO] if name.startswith("jobs/") else [RECIPES] if "/" in name else [folder]
            assert [base for base in bases if (base / name).is_file()], f"{where}: {name}"


def commands() -> list[tuple[str, list[str]]]:
    """The words of every command in the texts, and where it stands."""
    found = []
    for where, _, text in texts():
        joined = re.sub(r"\\\n\s*", "", text)
        found += [
            (where, shlex.split(line)) for line in re.findall(r"(?<!`)python (jobs/\w+\.py.*)$", joined, re.MULTILINE)
        ]
    return found


def test_every_command_is_one_that_its_job_takes(monkeypatch):
    monkeypatch.chdir(REPO)
    assert len(commands()) > len(TRAIN)
    for where, (job, *arguments) in commands():
        stage = Path(job).stem
        quickstart = RECIPES / stage / "quickstart.yaml"
        assert load_config(config_class(stage), argv=arguments, quickstart=quickstart, program=stage), where


def test_data_and_runs_that_are_read_are_written_by_another_recipe():
    """Shards by a `prepare`, weights by a training recipe of that name, of the same net, clips and folds."""
    outputs = {str(load(path).output) for path in (RECIPES / "prepare").glob("*.yaml")}
    for recipe in [*TRAIN, *TRANSFER, *(path for path in ALL if path.parent.name in ("evaluate", "baseline"))]:
        config = load(recipe)
        assert {str(shards) for shards in config.data.shards} <= outputs, recipe
        weights = config.checkpoint if isinstance(config, EvaluateConfig) else getattr(config, "init_from", None)
        if weights is None:
            continue
        name = weights.removeprefix("runs/").removesuffix("-fold{fold}")
        [source] = [load(path) for path in (*TRAIN, *TRANSFER) if path.stem == name]
        assert source.name == name, f"{recipe}: that run has another name"
        assert getattr(source, "folds", ()) == (config.folds if weights.endswith("{fold}") else ()), recipe
        if isinstance(config, TrainConfig):
            assert config.model == source.model, recipe
            assert config.clip.model_copy(update={"num_segments": 1}) == source.clip, recipe


@every(TRAIN)
def test_a_recipe_names_its_run_after_itself_but_for_those_that_are_run_again_and_again(recipe):
    assert load(recipe).name == (None if recipe.stem in ("quickstart", "weizmann") else recipe.stem)


# ---- the paper's values


def test_the_paper_recipe_is_section_4_4():
    config = load_train("paper")
    settings = flatten(config)
    expected = {
        "model.kind": "t3d_121",
        "model.ttl_preset": "growth",
        "model.drop_rate": 0.0,
        "data.fold": 1,
        "clip.num_frames": 32,
        "clip.frame_stride": 2,
        "clip.crop_size": 224,
        "clip.num_segments": 1,
        "augmentation.crop": "five_crop",
        "augmentation.flip": True,
        "augmentation.mixup_alpha": 0.0,
        "augmentation.cutmix_alpha": 0.0,
        "label_smoothing": 0.0,
        "optimizer.lr": 0.1,
        "optimizer.base_batch_size": None,
        "optimizer.momentum": 0.9,
        "optimizer.nesterov": True,
        "optimizer.weight_decay": 1e-4,
        "optimizer.clip_grad_norm": None,
        "schedule.kind": "plateau",
        "schedule.factor": 0.1,
        "global_batch_size": 64,
        "epochs": 200,
        "ema_decay": None,
        "init_from": None,
        "inflate_from": None,
        "compute.precision": "fp32",
    }
    assert {name: settings[name] for name in expected} == expected
    assert config.clip.short_side_pixels() == 256
    assert {settings[f"augmentation.{name}"] for name in ("brightness", "contrast", "saturation", "hue")} == {0.0}


KINETICS = {"data.shards": '["runs/data/kinetics400"]', "schedule.patience": 5, "scaling.num_workers": 8}
FINE_TUNED = {"optimizer.lr": 0.01, "schedule.patience": 5, "folds": "[1, 2, 3]"}
AXES = {
    "scratch_ucf101": {},
    "scratch_hmdb51": {"data.shards": '["runs/data/hmdb51"]'},
    "scratch_kinetics400": KINETICS,
    "table2_densenet3d_121": {"model.kind": "densenet3d_121"},
    "table2_densenet3d_169": {"model.kind": "densenet3d_169"},
    "table3_16_frames": {"model.kind": "densenet3d_121", "clip.num_frames": 16},
    "table4_resnet3d_50": {"model.kind": "resnet3d_50"},
    "table4_inception3d": {"model.kind": "inception3d"},
    "table5_112px": {"model.kind": "densenet3d_121", "clip.crop_size": 112},
    "table6_stride_1": {"model.kind": "densenet3d_121", "clip.frame_stride": 1},
    "table6_stride_4": {"model.kind": "densenet3d_121", "clip.frame_stride": 4},
    "table6_stride_16": {"model.kind": "densenet3d_121", "clip.frame_stride": 16},
    "table9_densenet3d": KINETICS | {"model.kind": "densenet3d_121"},
    "table9_t3d": KINETICS,
    "table9_inception3d": KINETICS | {"model.kind": "inception3d"},
    "table10_ucf101_densenet3d": FINE_TUNED
    | {"model.kind": "densenet3d_121", "epochs": 60, "init_from": "runs/table9_densenet3d", "replace_head": True},
    "table10_ucf101_t3d": FINE_TUNED | {"epochs": 60, "init_from": "runs/table9_t3d", "replace_head": True},
    "table10_ucf101_t3d_tsn": FINE_TUNED
    | {
        "clip.num_segments": 5,
        "freeze_backbone": True,
        "init_from": "runs/table10_ucf101_t3d-fold{fold}",
        "micro_batch_size": 4,
        "epochs": 30,
    },
}


TUNED = {"optimizer.lr": 0.01, "schedule.patience": 5, "epochs": 60}
for net, model in {
    "t3d": {},
    "densenet3d": {"model.kind": "densenet3d_121"},
    "resnet3d": {"model.kind": "resnet3d_50"},
}.items():
    half = {"init_from": f"runs/table8_{net}", "data.class_share": 0.5}
    then = {"init_from": f"runs/table8_{net}_half_kinetics", "replace_head": True}
    AXES |= {
        f"table8_{net}_transfer": TUNED | model | {"init_from": f"runs/table8_{net}"},
        f"table8_{net}_half_kinetics": TUNED | model | KINETICS | half,
        f"table8_{net}_ft_transfer": TUNED | model | then,
    }
AXES |= {
    "table10_t3d_transfer": TUNED | KINETICS | {"init_from": "runs/table8_t3d"},
    "table10_ucf101_t3d_transfer": AXES["table10_ucf101_t3d"] | {"init_from": "runs/table10_t3d_transfer"},
}


def with_hmdb51(axes: dict[str, Any]) -> dict[str, Any]:
    named = {name: value.replace("ucf101", "hmdb51") if name == "init_from" else value for name, value in axes.items()}
    return named | {"data.shards": '["runs/data/hmdb51"]'}


AXES |= {
    name.replace("ucf101", "hmdb51"): with_hmdb51(axes)
    for name, axes in AXES.items()
    if name.startswith("table10_ucf101")
}


def changes_from_paper(stem: str) -> dict[str, Any]:
    """The settings in which a recipe differs from `paper`, without those that another net has or has not."""
    paper, other = flatten(load_train("paper")), flatten(load_train(stem))
    names = [name for name in other if name == "model.kind" or not name.startswith("model.")]
    return {name: other[name] for name in names if other[name] != paper[name] and name != "name"}


def test_the_transfer_recipe_of_the_paper_is_sections_3_2_and_4_4():
    settings = flatten(load(RECIPES / "transfer" / "paper.yaml"))
    expected = {
        "model.kind": "t3d_121",
        "teacher.kind": "densenet121",
        "teacher.num_frames": None,
        "teacher.crop_size": 224,
        "teacher.shared_crop": False,
        "pairs": "literal",
        "clip.num_frames": 32,
        "clip.crop_size": 224,
        "optimizer.lr": 0.1,
        "optimizer.momentum": 0.9,
        "optimizer.nesterov": True,
        "optimizer.weight_decay": 1e-4,
        "schedule.kind": "step",
        "schedule.factor": 0.1,
        "schedule.every_epochs": 30,
        "global_batch_size": 32,
        "epochs": 150,
        "epoch_share": 0.5,
    }
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(("net", "model", "teacher"), [
    ("t3d", "t3d_121", "densenet121"),
    ("densenet3d", "densenet3d_121", "densenet121"),
    ("resnet3d", "resnet3d_50", "resnet50"),
])  # fmt: skip
def test_the_transfers_of_table_8_differ_from_the_papers_in_their_nets_and_in_what_they_cost(net, model, teacher):
    paper, other = (flatten(load(RECIPES / "transfer" / f"{stem}.yaml")) for stem in ("paper", f"table8_{net}"))
    changed = {name for name in other if other[name] != paper.get(name) and not name.startswith(("cache", "model."))}
    assert changed - {"teacher.kind"} == {"name", "pairs"}
    assert (other["model.kind"], other["teacher.kind"]) == (model, teacher)


@pytest.mark.parametrize("stem", AXES)
def test_the_recipe_of_a_table_differs_from_the_paper_recipe_on_its_axis_alone(stem):
    assert changes_from_paper(stem) == AXES[stem]


def test_every_recipe_of_the_paper_is_held_to_its_axis():
    assert {path.stem for path in TRAIN} == {*AXES, *REFERENCES, "quickstart", "weizmann", "weizmann_paper"}


def test_the_modern_recipe_has_what_its_name_promises_and_trains_the_same_net_on_the_same_data():
    modern = load_train("modern")
    assert set(changes_from_paper("modern")) == {
        *(f"augmentation.{name}" for name in ("crop", "brightness", "contrast", "saturation", "hue")),
        *("augmentation.mixup_alpha", "augmentation.cutmix_alpha", "label_smoothing"),
        *("optimizer.base_batch_size", "optimizer.clip_grad_norm"),
        *("schedule.kind", "schedule.warmup_epochs", "schedule.min_lr", "validate_every_epochs"),
        *("ema_decay", "precise_bn_steps"),
    }
    assert modern.schedule.kind == "cosine"
    assert modern.augmentation.crop == "random_resized"
    assert modern.model.model_copy(update={"drop_rate": 0.0}) == load_train("paper").model
    assert modern.model.drop_rate > 0


WRITTEN_OUT = (
    *("data.shards", "data.fold", "clip.", "augmentation.", "optimizer.", "label_smoothing", "ema_decay"),
    *("precise_bn_steps", "global_batch_size", "micro_batch_size", "epochs", "validate_every_epochs", "seed"),
)
OF_OTHER_KINDS = {"augmentation.min_area"}  # of crop random_resized


@pytest.mark.parametrize("stem", REFERENCES)
def test_the_reference_recipes_write_out_every_field_of_training_and_explain_each_line(stem):
    path = RECIPES / "train" / f"{stem}.yaml"
    config, tree = load(path), yaml.safe_load(path.read_text())
    written = {f"{section}.{name}" for section, fields in tree.items() if isinstance(fields, dict) for name in fields}
    needed = {name for name in flatten(config) if name.startswith(WRITTEN_OUT)} - written - set(tree)
    assert needed <= (OF_OTHER_KINDS if config.augmentation.crop == "five_crop" else set())
    lines = path.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        is_setting = re.match(r"\s*\w+: \S", line) and "#" not in line
        assert not is_setting or before.lstrip().startswith("#"), f"{stem}: no word about {line!r}"


# ---- the networks


@cache
def check_once(model: ModelConfig, *, num_frames: int, crop_size: int, batch_size: int) -> None:
    """What every run does first; once for all recipes with the same net and clips."""
    clip = ClipConfig(num_frames=num_frames, crop_size=crop_size)
    check_network(card_of(model, clip, class_names=()), batch_size=batch_size)


@cache
def kept_gib(model: ModelConfig, *, num_frames: int, crop_size: int, batch_size: int, is_recomputed: bool) -> float:
    """What autograd keeps of one pass, and weights, gradients, momentum and DDP's copy of the gradients."""
    with torch.device("meta"):
        net = build_model(model.kind, num_classes=400, **model.arguments())
        clip_BCTHW = torch.empty(batch_size, 3, num_frames, crop_size, crop_size)
    net.set_recompute(is_recomputed)
    return (saved_bytes(net, lambda: net(clip_BCTHW)) + 16 * count_parameters(net)) / GIB


def sizes(config: Any) -> dict[str, int]:
    """Of what goes through a network at once."""
    clip = config.clip
    return {"num_frames": clip.num_frames, "crop_size": clip.crop_size, "batch_size": config.smallest_batch()}


@pytest.mark.heavy
@every([*TRAIN, *TRANSFER])
def test_the_net_of_every_recipe_takes_its_clips_and_fits_16_gib(recipe):
    """The rest of the 16 GiB is CUDA's own and what lives only while a layer runs."""
    config = load(recipe)
    check_once(config.model, **sizes(config))
    assert kept_gib(config.model, **sizes(config), is_recomputed=config.compute.recompute) < 13


@pytest.mark.heavy
@pytest.mark.parametrize("kind", get_args(ModelKind))
def test_every_net_can_be_trained_from_scratch_on_every_data_set_and_fits_16_gib(kind):
    more = ["--compute.recompute", "true"] if kind == "c3d" else []
    for recipe in SCRATCH:
        config = load(recipe, "--model.kind", kind, *more)
        assert config.model.kind == kind
        assert kept_gib(config.model, **sizes(config), is_recomputed=config.compute.recompute) < 13
