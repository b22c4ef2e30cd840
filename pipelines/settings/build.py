"""A recipe with other values becomes a checked, frozen config.

Precedence: command line > recipe > defaults of the classes. A section that several classes may fill is a union of
`Section`s with a `kind: Literal[...]` each; a kind that differs from that of the recipe or the default drops
the settings given there. Environment variables are never read.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from pipelines.settings.options import Tree, describe, find_setting, sections_of
from pipelines.settings.problems import describe_problem, describe_unknown, show_value
from pipelines.settings.section import SectionT, dotted_leaves
from t3d_core.errors import UserError


def with_values(config_class: type[SectionT], recipe: Tree, values: Mapping[str, object]) -> SectionT:
    """The config of a recipe with other values for some dotted names, settings or whole sections.

    Raises:
        UserError: one line a wrong setting.
    """
    problems: dict[str, str] = {}
    tree = complete(copy.deepcopy(recipe), config_class)
    for name in sorted(values, key=outer_kinds_first):
        target = find_setting(config_class, tree, name)
        if target is None:
            problems[name] = describe_unknown(config_class, tree, name, values[name])
        else:
            assign(tree, target.path, copy.deepcopy(values[name]))
    return validated(config_class, tree, problems)


def changed(config: SectionT, settings: Mapping[str, object]) -> SectionT:
    """The config with other values for some dotted names.

    Raises:
        UserError: one line a wrong setting.
    """
    return with_values(type(config), config.model_dump(mode="json", by_alias=True), settings)


def outer_kinds_first(name: str) -> tuple[int, bool]:
    """Sort key of dotted names: outer sections before inner ones, and the kind before what a section of it may have."""
    return name.count("."), not name.endswith("kind")


def validated(config_class: type[SectionT], tree: Tree, problems: dict[str, str]) -> SectionT:
    """The config of a tree of values.

    Args:
        config_class: the root section.
        tree: names -> values, nested.
        problems: dotted name -> the line about it, where something is wrong already.

    Raises:
        UserError: one line a wrong setting.
    """
    tree = complete(tree, config_class)
    for name, value in dotted_leaves(tree):
        target = find_setting(config_class, tree, name)
        # pydantic reads true as 1, and YAML reads `epochs: yes` as true
        is_setting = target is not None and _at(tree, target.path) is value  # or it is part of a value of any type
        if isinstance(value, bool) and target and is_setting and not fits(value, target.annotation, strict=True):
            problems.setdefault(name, f"{name}: given {show_value(value)}, allowed: {describe(target.annotation)}")
    try:
        config = config_class.model_validate(tree)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            name, line = describe_problem(config_class, tree, details)
            problems.setdefault(name, line)
    if problems:
        raise UserError("\n".join(problems.values()))
    return config


def _at(tree: Tree, path: Sequence[str]) -> object:
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    return node


def complete(given: Tree, section: type[BaseModel], default: BaseModel | None = None) -> Tree:
    """A copy of `given` in which the class's defaults complete every section that is given in part."""
    tree = (default.model_dump(by_alias=True) if default else {}) | given
    for name, value in given.items():
        if not isinstance(value, dict) or name not in section.model_fields:
            continue
        field = section.model_fields[name]
        own = getattr(default, name) if default else field.get_default(call_default_factory=True)
        own_kind = getattr(own, "kind", None)
        own = own if isinstance(own, BaseModel) and value.get("kind", own_kind) == own_kind else None
        inner = [type(own)] if own else sections_of(field.annotation, value)
        tree[name] = complete(value, inner[0], own) if inner else dict(value)
    return tree


def assign(tree: Tree, path: Sequence[str], value: object) -> None:
    """Put a value into the tree, in place; a new kind drops the other settings of its section."""
    node = tree
    for name in path[:-1]:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    if path[-1] == "kind" and len(path) > 1 and node.get("kind") != value:
        node.clear()
    node[path[-1]] = value


def fits(value: object, annotation: Any, *, strict: bool = False) -> bool:
    """Whether the type takes the value; strict: without turning it into another type first."""
    try:
        TypeAdapter(annotation).validate_python(value, strict=strict)
    except ValidationError:
        return False
    return True
