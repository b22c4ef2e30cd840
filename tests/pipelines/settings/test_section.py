import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from pipelines.networks.config import T3DConfig
from pipelines.search.config import SearchConfig
from pipelines.settings.section import (
    ADDED,
    RESUMABLE,
    Address,
    Role,
    Section,
    UserPath,
    added_defaults,
    config_fingerprint,
    flatten,
    names_of_roles,
    without_added,
)
from pipelines.train.config import TrainAugmentationConfig, TrainConfig, TrainDataConfig
from pipelines.transfer.config import TransferConfig, TransferDataConfig
from tests.pipelines.settings.example import LinearHead, Optimizer, Train


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


def test_a_map_from_text_to_text_is_one_parameter_whatever_its_names():
    flip = {"pulling [a cord] left": "pulling [a cord] right", "b.c": "d"}
    config = TrainConfig(data=TrainDataConfig(), model=T3DConfig(), augmentation={"flip": flip})
    named = {name: value for name, value in flatten(config).items() if "flip" in name}
    assert named == {"augmentation.flip": json.dumps(flip)}
    assert config_fingerprint(config) == config_fingerprint(
        config.model_copy(update={"augmentation": TrainAugmentationConfig(flip=dict(reversed(flip.items())))})
    )


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


class Sgd(Section):
    """As it was at first, with a setting that came later."""

    kind: Annotated[Literal["sgd"], ADDED] = "sgd"
    lr: float = 0.1
    scale: Annotated[float | None, Field(gt=0), ADDED] = None


class Adam(Section):
    """A kind that came later."""

    kind: Literal["adam"] = "adam"
    lr: float = 0.1


class Later(Section):
    """Settings of a later version."""

    seed: int = 0
    optimizer: Annotated[Sgd | Adam, Field(discriminator="kind")] = Sgd()


class Earlier(Section):
    """The same of an earlier version."""

    seed: int = 0
    optimizer: dict[str, float] = Field(default_factory=lambda: {"lr": 0.1})


def test_a_setting_that_was_added_counts_only_where_it_is_not_at_its_default():
    assert added_defaults(Later) == {"optimizer.kind": "sgd", "optimizer.scale": None}
    of_all = [config_fingerprint(config) for config in (
        Earlier(), Later(optimizer=Sgd(scale=1.0)), Later(optimizer=Adam()), Later(optimizer=Sgd(lr=1.0))
    )]  # fmt: skip
    assert config_fingerprint(Later()) == of_all[0]
    assert len(set(of_all)) == 4


def test_a_recipe_that_was_extended_by_added_settings_at_their_defaults_is_the_one_before():
    extended = {"name": "a", "seed": 0, "optimizer": {"kind": "sgd", "lr": 0.1, "scale": None}}
    before = {"name": "a", "seed": 0, "optimizer": {"lr": 0.1}}
    assert without_added(extended, added_defaults(Later)) == before
    changed = {"optimizer": {"kind": "adam", "scale": 2.0}}
    assert without_added(changed, added_defaults(Later)) == changed


def test_runs_of_earlier_versions_are_resumed_with_the_settings_that_they_had():
    """The fingerprints are those of version 7987218 (2026-11-30): settings that came since are marked with `ADDED`."""
    configs = (
        TrainConfig(data=TrainDataConfig(shards=(Path("x"),)), model=T3DConfig()),
        TransferConfig(data=TransferDataConfig(shards=(Path("x"),)), model=T3DConfig()),
    )
    assert [config_fingerprint(config, exclude=names_of_roles(type(config), RESUMABLE)) for config in configs] == [
        "6cd93760b340f05f610d389cdb403315225284ae9a995f83e5a6343ad5518e5c",
        "3333c3eecd249aaca72afc0e5e2433e4fc1fb6e437331d00fbfba876c6a97aaa",
    ]


class Places(Section):
    """Paths and addresses."""

    shards: tuple[UserPath, ...] = ()
    output: UserPath | None = None
    uri: Address | None = None


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("~/clips", "/home/ada/clips"),
        ("~", "/home/ada"),
        ("runs/~x", "runs/~x"),
        ("~nobody-of-that-name/x", "~nobody-of-that-name/x"),
        ("s3://bucket/~x", "s3://bucket/~x"),
    ],
)
def test_a_leading_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, given: str, expanded: str):
    monkeypatch.setenv("HOME", "/home/ada")
    places = Places(shards=(given,), output=given, uri=given)
    assert (str(places.shards[0]), str(places.output), places.uri) == (
        str(Path(expanded)),
        str(Path(expanded)),
        expanded,
    )


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("sqlite:///~/mlflow.db", "sqlite:////home/ada/mlflow.db"),
        ("sqlite:////~/mlflow.db", "sqlite:////home/ada/mlflow.db"),
        ("file:~/mlruns", "file:/home/ada/mlruns"),
        ("file://~/mlruns", "file:///home/ada/mlruns"),
        ("file:///~/mlruns", "file:///home/ada/mlruns"),
        ("sqlite:///sub/~/mlflow.db", "sqlite:///sub/~/mlflow.db"),
        ("http://host/~ada", "http://host/~ada"),
    ],
)
def test_the_path_of_a_store_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch, given: str, expanded: str):
    monkeypatch.setenv("HOME", "/home/ada")
    assert Places(uri=given).uri == expanded


class Surroundings(Section):
    """Where it runs."""

    num_workers: Annotated[int, Role.RUNNING] = 1
    precision: str = "fp32"


class Marked(Section):
    """Settings of every role."""

    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    lr: float = 0.1
    seed: Annotated[int, Field(ge=0), Role.REPLICATE] = 0
    compute: Surroundings = Surroundings()
    cache: Annotated[Surroundings | None, Role.SPEED] = None


def test_settings_are_found_by_their_role_with_whole_sections():
    assert names_of_roles(Marked, RESUMABLE) == ("storage", "compute.num_workers", "cache")
    assert names_of_roles(Marked, {Role.REPLICATE}) == ("seed",)


def test_what_may_change_on_resume_and_what_is_no_experiment_stay_what_they_are():
    """A run of an earlier version is resumed only where its fingerprint leaves out the same settings."""
    of_runs = {*names_of_roles(TrainConfig, RESUMABLE), *names_of_roles(TransferConfig, RESUMABLE)}
    assert of_runs == {
        *("storage", "name", "scaling", "failure", "tracking", "checkpoint", "log_every_steps"),
        *("data.shards", "data.prepare", "data.fingerprint", "data.holdout_seed", "register", "alias", "folds"),
        *("compute.recompute", "compute.compile", "compute.debug", "model.transition_forms", "checks", "probe"),
        *("cache.num_workers", "cache.cpus_per_worker", "cache.use_gpu"),
    }
    assert set(names_of_roles(SearchConfig, RESUMABLE)) == {
        *("storage", "name", "budget", "max_concurrent", "max_failures", "tracking", "register", "alias"),
        "sampler.num_points",
    }
    not_the_experiment = {
        name for config_class in (TrainConfig, TransferConfig) for name in names_of_roles(config_class, set(Role))
    }
    assert not_the_experiment == of_runs | {"seed", "data.fold", "compute.channels_last"}
