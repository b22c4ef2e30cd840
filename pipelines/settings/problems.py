"""A wrong setting becomes one line: its name, what was given, what is allowed, the closest name."""

import difflib
import json
import re
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pipelines.settings.options import Tree, describe, find_setting, options_of


def describe_problem(config_class: type[BaseModel], tree: Tree, error: ErrorDetails) -> tuple[str, str]:
    """The dotted name at fault and the line about it."""
    name, value = _dotted(tree, error), error["input"]
    if error["type"] == "extra_forbidden":
        return name, describe_unknown(config_class, tree, name, value)
    if error["type"].startswith("union_tag"):
        name, value = f"{name}.kind", value.get("kind")
    given = "needed" if error["type"] in ("missing", "union_tag_not_found") else f"given {show_value(value)}"
    target = find_setting(
        config_class, tree, re.sub(r"(\.\d+)+$", "", name)
    )  # an item of a list is described by the list
    if target and error["msg"].startswith(("Input", "Field", "Unable")):
        return name, f"{name}: {given}, allowed: {describe(target.annotation)}"
    message = error["msg"].removeprefix("Value error, ")
    return name, f"{name}: {message}" if isinstance(value, dict) else f"{name}: {given}, {message}"


def _dotted(tree: Tree, error: ErrorDetails) -> str:
    """The location without the names of union members, which no recipe contains."""
    node: Any = tree
    parts = []
    for depth, part in enumerate(error["loc"]):
        inside = part in node if isinstance(node, dict) else isinstance(node, list | tuple) and isinstance(part, int)
        if inside or (error["type"] == "missing" and depth == len(error["loc"]) - 1):
            parts.append(str(part))
            node = node[part] if inside else None
    return ".".join(parts) or "recipe"


def describe_unknown(config_class: type[BaseModel], tree: Tree, name: str, value: object) -> str:
    """The line about an unknown name, with the closest name that exists."""
    known = [option.name for option in options_of(config_class, tree)]
    known += sorted({option.rpartition(".")[0] for option in known} - {""})

    def likeness(other: str) -> tuple[float, float]:
        pairs = (name, other), (name.rpartition(".")[2], other.rpartition(".")[2])
        whole, last = (difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return max(whole, last), whole

    kinds = [kind for option in options_of(config_class) if option.name == name for kind in option.kinds]
    hint = f"only of kind {', '.join(kinds)}" if kinds else f"the closest is {max(known, key=likeness)}"
    return f"{name}: given {show_value(value)}, no such setting, {hint}"


def show_value(value: object) -> str:
    """A value as JSON, at most 80 characters."""
    return textwrap.shorten(json.dumps(value, default=str, skipkeys=True), 80, placeholder=" ...")
