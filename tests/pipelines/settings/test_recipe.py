import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, PositiveInt, ValidationError, field_validator

from pipelines.settings.command_line import load_config
from pipelines.settings.job import run_job
from pipelines.settings.recipe import to_yaml
from pipelines.settings.section import Section, config_fingerprint, flatten
from t3d_core.errors import UserError


class LinearHead(Section):
    """A linear layer."""

    kind: Literal["linear"] = "linear"
    bias: bool = True


class DeepHead(Section):
    """Two layers."""

    kind: Literal["deep"] = "deep"
    width: PositiveInt = 512


class T3DModel(Section):
    """Temporal 3D ConvNet."""

    kind: Literal["t3d_121", "t3d_169"] = "t3d_121"
    growth_rate: int = Field(default=32, gt=0)
    """Channels that a layer adds."""
    block_config: tuple[int, ...] = (6, 12, 24, 16)
    head: Annotated[LinearHead | DeepHead, Field(discriminator="kind")] = LinearHead()


class ResNetModel(Section):
    """ResNet3D."""

    kind: Literal["resnet3d_50"] = "resnet3d_50"
    depth: int = 50
    growth_rate: int = 12
    """Channels that a layer adds."""


Model = Annotated[T3DModel | ResNetModel, Field(discriminator="kind")]


class Optimizer(Section):
    """Stochastic gradient descent."""

    lr: float = Field(default=0.1, gt=0)
    """Step size, 50 % of the usual."""
    nesterov: bool = True
    clip: PositiveInt | Literal["auto"] | None = None


class Data(Section):
    """What is trained on."""

    shards: list[str] = Field(default_factory=lambda: ["shards"])
    """Shard folders."""
    fold: Literal[1, 2, 3] | None = None


class Train(Section):
    """Trains a network.

    This second paragraph is not for the help.
    """

    data: Data = Data()
    model: Model = T3DModel(growth_rate=24)
    teacher: Model | None = None
    optimizer: Optimizer = Optimizer(lr=0.01)
    resources: dict[str, float] = Field(default_factory=dict)
    init_from: Path | None = None
    max_failed_fraction: float = Field(default=0.1, ge=0, le=1)
    name: str = "train"
    home: str = "nowhere"

    @field_validator("name")
    @classmethod
    def _has_no_slash(cls, name: str) -> str:
        if "/" in name:
            raise ValueError("a name has no slash")
        return name


class Evaluate(Section):
    """Evaluates a checkpoint."""

    checkpoint: Path
    """Weights."""


Load = Callable[..., Train]
Failing = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """load("--name x", quickstart="name: y") -> the config."""

    def load(line: str = "", *words: str, quickstart: str = "{}", recipe: str | None = None) -> Train:
        (tmp_path / "quickstart.yaml").write_text(quickstart)
        argv = [*line.split(), *words]
        if recipe is not None:
            (tmp_path / "recipe.yaml").write_text(recipe)
            argv += ["--recipe", str(tmp_path / "recipe.yaml")]
        return load_config(Train, argv=argv, quickstart=tmp_path / "quickstart.yaml", program="python jobs/train.py")

    return load


@pytest.fixture
def failing(load: Load, capsys: pytest.CaptureFixture[str]) -> Failing:
    """The lines on stderr of a load that must end with status 2."""

    def failing(*args: str, **kwargs: Any) -> list[str]:
        with pytest.raises(SystemExit) as exit_info:
            load(*args, **kwargs)
        assert exit_info.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        assert "pydantic" not in captured.err
        return captured.err.splitlines()

    return failing


# ---- what is the base


def test_without_a_recipe_the_quickstart_is_the_base_whatever_else_is_given(load: Load):
    config = load("--optimizer.nesterov false", quickstart="name: quick\noptimizer: {lr: 0.5}")
    assert (config.name, config.optimizer.lr, config.optimizer.nesterov) == ("quick", 0.5, False)


def test_a_recipe_replaces_the_quickstart_altogether(load: Load):
    config = load(recipe="optimizer: {lr: 0.5}", quickstart="name: quick")
    assert (config.name, config.optimizer.lr) == ("train", 0.5)


def test_recipe_may_be_given_with_an_equals_sign_and_anywhere(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("name: r")
    argv = ["--optimizer.lr", "0.3", f"--recipe={tmp_path / 'r.yaml'}", "--data.fold", "1"]
    config = load_config(Train, argv=argv, quickstart=tmp_path / "absent.yaml", program="p")
    assert (config.name, config.optimizer.lr, config.data.fold) == ("r", 0.3, 1)


def test_a_section_given_in_part_keeps_the_rest_of_the_default_section(load: Load):
    assert load(recipe="optimizer: {nesterov: false}").optimizer == Optimizer(lr=0.01, nesterov=False)
    assert load(recipe="model: {block_config: [1]}").model == T3DModel(growth_rate=24, block_config=(1,))
    assert load("--model.head.bias false").model == T3DModel(growth_rate=24, head=LinearHead(bias=False))


def test_environment_variables_do_not_leak_in(load: Load, monkeypatch: pytest.MonkeyPatch):
    for name in ("name", "NAME", "home", "HOME", "optimizer__lr", "OPTIMIZER"):
        monkeypatch.setenv(name, "0.7")
    assert load() == Train()


def test_a_config_is_frozen(load: Load):
    with pytest.raises(ValidationError):
        load().name = "other"  # type: ignore[misc]


# ---- overrides


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--optimizer.lr 0.05", "optimizer.lr", 0.05),
        ("--optimizer.lr=5e-2", "optimizer.lr", 0.05),
        ("--optimizer.lr 1 --optimizer.lr 2", "optimizer.lr", 2.0),
        ("--data.fold 2", "data.fold", 2),
        ("--data.shards A B", "data.shards", '["A", "B"]'),
        ("--data.shards A --data.shards B", "data.shards", '["A", "B"]'),
        ("--data.shards A", "data.shards", '["A"]'),
        ("--data.shards 7", "data.shards", '["7"]'),
        ('--data.shards ["A","B"]', "data.shards", '["A", "B"]'),
        ("--data.shards [A,B]", "data.shards", '["A", "B"]'),
        ("--model.block_config 6 12", "model.block_config", "[6, 12]"),
        ("--model.block_config [6,12]", "model.block_config", "[6, 12]"),
        ("--model.block_config 6", "model.block_config", "[6]"),
        ("--optimizer.clip auto", "optimizer.clip", "auto"),
        ("--optimizer.clip 3", "optimizer.clip", 3),
        ("--init_from runs/a#1", "init_from", "runs/a#1"),
        ("--max_failed_fraction 0", "max_failed_fraction", 0.0),
        ("--name 123", "name", "123"),
        ("--name true", "name", "true"),
        ("--name=--odd", "name", "--odd"),
        ("--name=", "name", ""),
        ("--name null", "name", "null"),
        ("--resources.CPU 2", "resources.CPU", 2.0),
        ("--resources.accelerator.a 1", "resources.accelerator.a", 1.0),
        ('--optimizer {"lr":0.5}', "optimizer.lr", 0.5),
        ("--optimizer.nesterov", "optimizer.nesterov", True),
        ("--optimizer.nesterov false", "optimizer.nesterov", False),
        ("--no-optimizer.nesterov", "optimizer.nesterov", False),
    ],
)
def test_an_override_reads_as_the_type_of_its_setting(load: Load, line: str, name: str, value: object):
    found = flatten(load(line))[name]
    assert found == value
    assert type(found) is type(value)


def test_a_word_with_blanks_stays_whole(load: Load):
    assert load("--name", "two  words # three").name == "two  words # three"


def test_a_negative_number_is_a_value(failing: Failing):
    assert failing("--optimizer.lr -1")[0] == "optimizer.lr: given -1, allowed: number>0"


@pytest.mark.parametrize("null", ["null", "none", "None"])
def test_null_clears_an_optional_setting(load: Load, null: str):
    recipe = "data: {fold: 2}\ninit_from: w\nteacher: {kind: resnet3d_50}\noptimizer: {clip: auto}"
    config = load(
        f"--data.fold {null} --init_from {null} --teacher {null} --optimizer.clip {null}",
        recipe=recipe,
    )
    assert (config.data.fold, config.init_from, config.teacher, config.optimizer.clip) == (None,) * 4


# ---- kinds


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


# ---- wrong settings


def test_all_wrong_settings_are_listed_one_line_each_wherever_they_come_from(failing: Failing):
    lines = failing(
        "--optimizer.lr abc --data.fold 7 --model.growth_rat 3 --init_from --optimizer.clip -3 --max_failed_fraction 2",
        recipe="optimiser: {lr: 1}\nname: [1]\nmodel: {block_config: [3, x]}",
    )
    assert sorted(lines[:-1]) == [
        "data.fold: given 7, allowed: 1|2|3|null",
        "init_from: given no value, allowed: path|null",
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


def test_yes_in_yaml_is_no_number(failing: Failing):
    assert failing(recipe="model: {growth_rate: yes}")[:-1] == ["model.growth_rate: given true, allowed: integer>0"]


def test_a_number_may_be_written_as_1e_3_in_yaml(load: Load):
    assert load(recipe="resources: {a: 1e-3}\noptimizer: {lr: 1e-3}").optimizer.lr == 0.001


def test_a_needed_setting_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "q.yaml").write_text("{}")
    with pytest.raises(SystemExit):
        load_config(Evaluate, argv=[], quickstart=tmp_path / "q.yaml", program="p")
    assert capsys.readouterr().err.splitlines()[0] == "checkpoint: needed, allowed: path"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("a: [1", "not YAML"),
        ("- a", "a mapping of settings"),
        ("", "a mapping of settings"),
        ("name: a\nname: b", "duplicate key 'name'"),
        ("optimizer:\n  lr: 1\n  lr: 2", "duplicate key 'lr'"),
        ("a: \x00", "not YAML"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_one_line(failing: Failing, recipe: str, message: str):
    lines = failing(recipe=recipe)
    assert len(lines) == 2
    assert message in lines[0]


def test_a_missing_recipe_is_one_line(failing: Failing):
    assert failing("--recipe /no/such.yaml")[0] == "recipe /no/such.yaml: No such file or directory"


# ---- what is printed


def test_help_names_every_setting_with_text_and_default_within_100_columns(
    load: Load, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit_info:
        load("--optimizer.lr wrong --help")
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert exit_info.value.code == 0
    assert max(map(len, text.splitlines())) <= 100
    assert "Trains a network." in words
    assert "second paragraph" not in words
    assert "Without --recipe, " in words
    assert "quickstart.yaml is the recipe" in words
    assert all(f"--{name} " in words for name in [*flatten(load()), "teacher.depth", "model.head.width", "recipe"])
    assert "--print-config" in words
    assert "--optimizer.lr number>0 Step size, 50 % of the usual. (default 0.01)" in words
    assert "(t3d_121, t3d_169: default 24; resnet3d_50: default 12)" in words
    assert "--model.depth integer [resnet3d_50] (default 50)" in words
    assert "--model.block_config integer ... [t3d_121, t3d_169] (default 6 12 24 16)" in words
    assert "--model.kind t3d_121|t3d_169|resnet3d_50 (default t3d_121)" in words
    assert "--teacher.kind t3d_121|t3d_169|resnet3d_50 (default null)" in words


def test_help_marks_what_is_required(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        load_config(Evaluate, argv=["-h"], quickstart=Path("q.yaml"), program="p")
    assert "--checkpoint path Weights. (required)" in " ".join(capsys.readouterr().out.split())


texts = st.text(max_size=12) | st.sampled_from(
    ["1e-3", "null", "1:30", "010", "yes", "~", "2024-01-01", "a: b", "#", "["]
)
models = st.builds(
    T3DModel,
    kind=st.sampled_from(["t3d_121", "t3d_169"]),
    growth_rate=st.integers(1, 64),
    block_config=st.lists(st.integers(), max_size=40).map(tuple),
    head=st.builds(LinearHead, bias=st.booleans()) | st.builds(DeepHead, width=st.integers(1, 9)),
) | st.builds(ResNetModel, depth=st.integers())
configs = st.builds(
    Train,
    data=st.builds(Data, shards=st.lists(texts, max_size=3), fold=st.sampled_from([None, 1, 2, 3])),
    model=models,
    teacher=st.none() | models,
    optimizer=st.builds(
        Optimizer,
        lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        clip=st.sampled_from([None, "auto", 3]),
    ),
    resources=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    init_from=st.none() | st.sampled_from([Path("a b"), Path("1"), Path("null")]),
    name=texts.filter(lambda text: "/" not in text),
)


@settings(deadline=None, max_examples=50)
@given(config=configs)
def test_the_printed_config_is_a_recipe_of_the_same_config(config: Train, tmp_path_factory: pytest.TempPathFactory):
    recipe = tmp_path_factory.getbasetemp() / "printed.yaml"
    recipe.write_text(to_yaml(config))
    assert load_config(Train, argv=["--recipe", str(recipe)], quickstart=Path("absent"), program="p") == config


def test_print_config_prints_what_the_job_would_run_with(load: Load, capsys: pytest.CaptureFixture[str]):
    line = "--model.block_config 1 2 --optimizer.lr 0.3"
    with pytest.raises(SystemExit) as exit_info:
        load(f"--print-config {line}")
    printed = capsys.readouterr().out
    assert exit_info.value.code == 0
    assert "\n  block_config: [1, 2]\n" in printed
    assert load(recipe=printed) == load(line)
    assert yaml.safe_load(printed)["optimizer"]["lr"] == 0.3


def test_flatten_gives_dotted_names_and_plain_values():
    flat = flatten(Train(resources={"CPU": 2}, init_from=Path("w")))
    assert flat == {
        "data.shards": '["shards"]',
        "data.fold": None,
        "model.kind": "t3d_121",
        "model.growth_rate": 24,
        "model.block_config": "[6, 12, 24, 16]",
        "model.head.kind": "linear",
        "model.head.bias": True,
        "teacher": None,
        "optimizer.lr": 0.01,
        "optimizer.nesterov": True,
        "optimizer.clip": None,
        "resources.CPU": 2.0,
        "init_from": "w",
        "max_failed_fraction": 0.1,
        "name": "train",
        "home": "nowhere",
    }


def test_the_fingerprint_changes_with_every_setting_but_the_excluded():
    config = Train()
    other_name = Train(name="other", optimizer=Optimizer(lr=3))
    assert len(config_fingerprint(config)) == 64
    assert config_fingerprint(config) == config_fingerprint(Train())
    assert config_fingerprint(config) != config_fingerprint(Train(name="other"))
    assert config_fingerprint(config, exclude=["name", "optimizer"]) == config_fingerprint(
        other_name, exclude=["name", "optimizer"]
    )
    assert config_fingerprint(config, exclude=["nam"]) != config_fingerprint(Train(name="other"), exclude=["nam"])


def test_the_fingerprint_of_a_config_stays_what_it_is():
    assert config_fingerprint(LinearHead()) == "d08712cb484a4f1224dacea761cab0af36c20bdc44fd364f12fd316946cff39f"


# ---- run_job


def run_and_fail(error: BaseException, tmp_path: Path) -> int | str | None:
    (tmp_path / "q.yaml").write_text("{}")

    def run(config: Train) -> str:
        raise error

    with pytest.raises(SystemExit) as exit_info:
        run_job(Train, run, argv=[], quickstart=tmp_path / "q.yaml")
    return exit_info.value.code


def test_run_job_prints_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "q.yaml").write_text("name: quick")
    run_job(Train, lambda config: f"done {config.name}", argv=[], quickstart=tmp_path / "q.yaml")
    assert capsys.readouterr().out == "done quick\n"


class ShardsGoneError(UserError):
    """As the stages derive their own from it."""


@pytest.mark.parametrize("error_class", [UserError, ShardsGoneError])
def test_an_error_of_the_user_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error_class: type[UserError]
):
    assert run_and_fail(error_class("no worker\ncame back"), tmp_path) == 1
    assert capsys.readouterr().err == "error: no worker came back\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TypeError("odd"), "error: TypeError: odd"),
        (ValueError("operands could not be broadcast"), "error: ValueError: operands could not be broadcast"),
        (FileNotFoundError(2, "No such file", "x"), "error: FileNotFoundError: [Errno 2] No such file: 'x'"),
    ],
)
def test_every_other_error_keeps_its_traceback_above_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, line: str
):
    assert run_and_fail(error, tmp_path) == 1
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.endswith(f"\n{line}\n")


def test_an_error_that_a_remote_task_carries_is_told_by_its_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from ray.exceptions import RayTaskError

    remote = RayTaskError("f", "long\ntraceback", UserError("a broken shard")).as_instanceof_cause()
    assert run_and_fail(remote, tmp_path) == 1
    assert capsys.readouterr().err == "error: a broken shard\n"


def test_an_interrupt_is_one_line_and_status_130(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_and_fail(KeyboardInterrupt(), tmp_path) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


JOB = """
from pathlib import Path
from pipelines.settings.job import run_job
from pipelines.settings.section import Section

class Job(Section):
    '''Adds.'''
    path: int = 1
    home: str = "nowhere"

run_job(Job, lambda config: f"{1 / config.path} {config.home}", quickstart=Path(__file__).with_name("q.yaml"))
"""


@pytest.mark.parametrize(
    ("line", "status", "out", "last_line"),
    [
        ("", 0, "0.5 nowhere\n", None),
        ("--path x --hom y", 2, "", "error: wrong settings (recipe "),
        ("--path 0", 1, "", "error: ZeroDivisionError: "),
        ("--print-config", 0, "path: 2\nhome: nowhere\n", None),
    ],
)
def test_a_job_as_a_process_ends_with_the_status_of_the_contract(
    tmp_path: Path, line: str, status: int, out: str, last_line: str | None
):
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "q.yaml").write_text("path: 2")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "path": "7"}
    done = subprocess.run(
        [sys.executable, "job.py", *line.split()], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (status, out)
    assert last_line is None or done.stderr.splitlines()[-1].startswith(last_line)
