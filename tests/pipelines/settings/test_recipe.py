from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.settings.command_line import load_config
from pipelines.settings.recipe import find_recipe, to_yaml
from t3d_core.errors import UserError
from tests.pipelines.settings.example import (
    Data,
    DeepHead,
    Failing,
    LinearHead,
    Load,
    Optimizer,
    ResNetModel,
    T3DModel,
    Train,
)


def test_yes_in_yaml_is_no_number(failing: Failing):
    assert failing(recipe="model: {growth_rate: yes}")[:-1] == ["model.growth_rate: given true, allowed: integer>0"]


def test_a_number_may_be_written_as_1e_3_in_yaml(load: Load):
    assert load(recipe="resources: {a: 1e-3}\noptimizer: {lr: 1e-3}").optimizer.lr == 0.001


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


def test_a_recipe_is_found_by_its_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "paper.yaml").write_text("name: paper")
    monkeypatch.chdir(tmp_path)
    for word in ("paper", "paper.yaml"):
        assert find_recipe(word, folder=tmp_path / "recipes") == tmp_path / "recipes" / "paper.yaml"
    (tmp_path / "paper.yaml").write_text("name: mine")
    assert find_recipe("paper.yaml", folder=tmp_path / "recipes") == Path("paper.yaml")


def test_a_wrong_recipe_name_lists_what_there_is(tmp_path: Path):
    for name in ("modern", "paper"):
        (tmp_path / f"{name}.yaml").write_text("{}")
    with pytest.raises(UserError, match=r"recipe papr: .*the closest is paper; recipes of this job: modern, paper$"):
        find_recipe("papr", folder=tmp_path)


def test_a_recipe_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("{}")
    assert find_recipe("~/mine.yaml", folder=tmp_path / "recipes") == tmp_path / "mine.yaml"
