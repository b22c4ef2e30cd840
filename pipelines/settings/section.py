"""One section of a config: frozen and checked; as parameters, as a fingerprint.

The role of a setting is marked once, on its field, with a `Role`. The roles determine which settings may change when a
run is resumed, and which make two runs the same experiment. A setting that was added later is marked with `ADDED`: with
its default, a run is the same experiment as the runs that were made before there was this setting.
"""

import enum
import hashlib
import json
import os
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipelines.settings.options import Tree, members_of, sections_of

# pydantic warns of a field `register` because metaclasses have a method of that name; instances have none.
warnings.filterwarnings("ignore", message='Field name "register"')

SectionT = TypeVar("SectionT", bound="Section")


class Role(enum.Enum):
    """The role of a setting: `storage: Annotated[UserPath, Role.PLACE]`. One without a role defines the experiment."""

    PLACE = "where data, runs and models lie, what they are called, and which of them a job makes"
    RUNNING = "what a job may take (workers, restarts, checkpoints, a budget) and checks at its start"
    VIEW = "what people see of it"
    SPEED = "how fast the same result is computed"
    ROUNDING = "how the result is computed: the same except for rounding"
    REPLICATE = "which repetition of the experiment it is"


class _Added(enum.Enum):
    MARK = "a setting that earlier versions lack, whose default is what they did"


ADDED = _Added.MARK

# A resumed run computes what it would have computed; only its surroundings may change.
RESUMABLE = frozenset({Role.PLACE, Role.RUNNING, Role.VIEW, Role.SPEED})
# Runs that differ in these alone are repetitions of one experiment.
NOT_THE_EXPERIMENT = frozenset(Role)

_STORE_IN_HOME = re.compile(r"(?P<scheme>sqlite:///|file://|file:)/?(?P<path>~.*)")


def expand_home(text: str) -> str:
    """A path or address in which a leading `~` stands for the user's home folder.

    A name without a home folder (`~nobody`) stays as it is. In the address of an MLflow store the path follows the
    scheme, with or without the slash of an absolute path.
    """
    store = _STORE_IN_HOME.fullmatch(text)
    return store["scheme"] + os.path.expanduser(store["path"]) if store else os.path.expanduser(text)


Fraction = Annotated[float, Field(ge=0, lt=1)]
UserPath = Annotated[Path, AfterValidator(lambda path: Path(expand_home(str(path))))]
Address = Annotated[str, AfterValidator(expand_home)]


class Section(BaseModel):
    """One section of a config: frozen, knows all its settings, each described by the docstring below it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    FIRST_SETTINGS: ClassVar[tuple[str, ...]] = ()
    """The settings of a job's root section that people change most: `--help` shows these, or all if there are none."""

    POSITIONAL: ClassVar[str | None] = None
    """The setting of a job's root section that words without an option name are for."""


def names_of_roles(config_class: type[BaseModel], roles: Collection[Role]) -> tuple[str, ...]:
    """Dotted names of the settings, or of whole sections, that are marked with one of `roles`."""
    return tuple(dict.fromkeys(_marked(config_class, roles, prefix="")))


def _marked(section: type[BaseModel], roles: Collection[Role], *, prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if any(mark in roles for mark in field.metadata if isinstance(mark, Role)):
            yield f"{prefix}{name}"
        else:
            for inner in sections_of(field.annotation):
                yield from _marked(inner, roles, prefix=f"{prefix}{name}.")


def added_defaults(config_class: type[BaseModel]) -> dict[str, object]:
    """Dotted name -> default, as MLflow and fingerprints see it, of the settings that are marked with `ADDED`."""
    return dict(_added(config_class, prefix=""))


def _added(section: type[BaseModel], *, prefix: str) -> Iterator[tuple[str, object]]:
    for name, field in section.model_fields.items():
        if ADDED in field.metadata:
            yield f"{prefix}{name}", field.get_default()
        for inner in sections_of(field.annotation):
            yield from _added(inner, prefix=f"{prefix}{name}.")


def without_added(tree: Tree, added: Mapping[str, object], *, prefix: str = "") -> Tree:
    """A copy of a recipe's tree without the settings in `added` that have the default given there."""
    return {
        name: without_added(value, added, prefix=f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in tree.items()
        if not (f"{prefix}{name}" in added and value == added[f"{prefix}{name}"])
    }


def flatten(config: BaseModel) -> dict[str, object]:
    """Dotted name -> value (text, number, bool or None; lists as JSON text): the parameters of an MLflow run.

    A map from text to text is one value, because MLflow refuses some of the names that people choose in it.
    """
    leaves = dotted_leaves(
        config.model_dump(mode="json", by_alias=True), whole=set(_text_maps(type(config), prefix=""))
    )
    return {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in leaves}


def config_fingerprint(config: BaseModel, *, exclude: Collection[str] = ()) -> str:
    """SHA-256 (64 hex digits) over the settings and their values, without the dotted names or sections in `exclude`.

    A setting that is marked with `ADDED` counts only where it has another value than its default.
    """
    added = added_defaults(type(config))
    kept = {
        name: value
        for name, value in dotted_leaves(config.model_dump(mode="json", by_alias=True))
        if not is_among(name, exclude) and not (name in added and value == added[name])
    }
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def is_among(name: str, names: Collection[str]) -> bool:
    """Whether a dotted name is one of `names`, or lies in a section that is one of them."""
    return any(f"{name}.".startswith(f"{each}.") for each in names)


def _text_maps(section: type[BaseModel], *, prefix: str) -> Iterator[str]:
    """Dotted names of the settings that may be a map from text to text."""
    for name, field in section.model_fields.items():
        if dict[str, str] in members_of(field.annotation):
            yield f"{prefix}{name}"
        for inner in sections_of(field.annotation):
            yield from _text_maps(inner, prefix=f"{prefix}{name}.")


def dotted_leaves(tree: Tree, prefix: str = "", *, whole: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting of a tree; an empty mapping, and one in `whole`, count as a value."""
    for name, value in tree.items():
        if isinstance(value, dict) and value and f"{prefix}{name}" not in whole:
            yield from dotted_leaves(value, f"{prefix}{name}.", whole=whole)
        else:
            yield f"{prefix}{name}", value
