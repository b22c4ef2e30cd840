"""One section of a config: frozen and checked; as parameters, as a fingerprint."""

import hashlib
import json
import warnings
from collections.abc import Collection, Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from pipelines.settings.options import Tree

# pydantic warns of a field `register` because metaclasses have a method of that name; instances have none.
warnings.filterwarnings("ignore", message='Field name "register"')

Fraction = Annotated[float, Field(ge=0, lt=1)]
SectionT = TypeVar("SectionT", bound="Section")


class Section(BaseModel):
    """One section of a config: frozen, knows all its settings, each described by the docstring below it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def flatten(config: BaseModel) -> dict[str, object]:
    """Dotted name -> value (text, number, bool or None; lists as JSON text): the parameters of an MLflow run."""
    leaves = dotted_leaves(config.model_dump(mode="json", by_alias=True))
    return {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in leaves}


def config_fingerprint(config: BaseModel, *, exclude: Collection[str] = ()) -> str:
    """SHA-256 (64 hex digits) over the settings and their values, without the dotted names or sections in `exclude`."""
    kept = {
        name: value
        for name, value in dotted_leaves(config.model_dump(mode="json", by_alias=True))
        if not any(f"{name}.".startswith(f"{excluded}.") for excluded in exclude)
    }
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def dotted_leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting of a tree; an empty mapping counts as a value."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from dotted_leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
