"""A config class becomes the list of its settings: dotted name, allowed values and default of each."""

import functools
import inspect
import operator
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Tree = dict[str, Any]


class Setting(NamedTuple):
    """Where in the tree a dotted name points, and the type of its value."""

    path: tuple[str, ...]
    annotation: Any


def find_setting(config_class: type[BaseModel], tree: Tree, name: str) -> Setting | None:
    """The setting of that dotted name among the kinds that the tree names; None if there is none."""
    parts = name.split(".")
    sections: list[type[BaseModel]] = [config_class]
    node: Any = tree
    for depth, part in enumerate(parts, start=1):
        annotations = [_annotated(section.model_fields[part]) for section in sections if part in section.model_fields]
        if not annotations:
            return None
        annotation = functools.reduce(operator.or_, annotations)
        node = node.get(part) if isinstance(node, dict) else None
        mappings = [member for member in members_of(annotation) if get_origin(member) is dict]
        if mappings and depth < len(parts):  # the rest is one key, dots and all
            return Setting((*parts[:depth], ".".join(parts[depth:])), get_args(mappings[0])[1])
        sections = sections_of(annotation, node if parts[depth:] != ["kind"] else None)
    return Setting(tuple(parts), annotation)


class Option(NamedTuple):
    """One setting as the help shows it; `kinds`: the kinds of its section that have it, () where there is no choice."""

    name: str
    allowed: str
    text: str
    default: object
    kinds: tuple[str, ...]


def options_of(
    section: type[BaseModel],
    tree: Tree | None = None,
    *,
    prefix: str = "",
    default: object = None,
    kinds: tuple[str, ...] = (),
) -> Iterator[Option]:
    """All settings of a section and below it; with a tree only those of the kinds that it names."""
    for name, field in section.model_fields.items():
        value = getattr(default, name) if isinstance(default, section) else field.get_default(call_default_factory=True)
        node = (tree or {}).get(name)
        annotation = _annotated(field)
        sections = sections_of(annotation)
        choices = [kind for inner in sections for kind in kinds_of(inner)]
        if choices:
            text = (sections[0].model_fields["kind"].description or "") if len(sections) == 1 else ""
            yield Option(f"{prefix}{name}.kind", "|".join(choices), text, getattr(value, "kind", value), ())
        elif not (kinds and name == "kind") and not sections_of(annotation):
            yield Option(f"{prefix}{name}", describe(annotation), field.description or "", value, kinds)
        for inner in sections_of(annotation, node):
            below = node if isinstance(node, dict) else None
            yield from options_of(inner, below, prefix=f"{prefix}{name}.", default=value, kinds=kinds_of(inner))


def _annotated(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def members_of(annotation: Any) -> list[Any]:
    """The types of a union, or the one type."""
    if get_origin(annotation) is Annotated:
        return members_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for argument in get_args(annotation) for member in members_of(argument)]
    return [annotation]


def sections_of(annotation: Any, node: object = None) -> list[type[BaseModel]]:
    """The sections which the type allows: those of the kind that the node names; all when none is of that kind."""
    sections = [
        member for member in members_of(annotation) if inspect.isclass(member) and issubclass(member, BaseModel)
    ]
    kind = node.get("kind") if isinstance(node, dict) else None
    return [section for section in sections if kind in kinds_of(section)] or sections


def kinds_of(section: type[BaseModel]) -> tuple[str, ...]:
    """The kinds of a section; empty where it is the only section in its place."""
    return get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()


def describe(annotation: Any) -> str:
    """The allowed values of a setting in short form: `number>0`, `1|2|3|null`, `integer ...`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        metadata = [
            item for part in arguments[1:] for item in (part.metadata if isinstance(part, FieldInfo) else [part])
        ]
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        bounds = [
            f"{sign}{getattr(item, key)}" for item in metadata for key, sign in signs.items() if hasattr(item, key)
        ]
        return describe(arguments[0]) + ",".join(bounds)
    if origin in (Union, types.UnionType):
        return "|".join(dict.fromkeys(describe(argument) for argument in arguments))
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin is dict:
        return f"{{{describe(arguments[0])}: {describe(arguments[1])}, ...}}"
    if arguments:  # list, tuple, set
        return " ".join("..." if argument is ... else describe(argument) for argument in arguments) + (
            "" if origin is tuple else " ..."
        )
    names = {int: "integer", float: "number", str: "text", bool: "true|false", type(None): "null", Path: "path"}
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    return names.get(annotation) or getattr(annotation, "__name__", "value").lower()
