"""The texts of `--help`, the settings that people change most, and of `--help-all`, every setting."""

import argparse
import functools
import inspect
import json
import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipelines.settings.options import Option, Tree, find_setting, kinds_of, members_of, options_of, sections_of
from pipelines.settings.section import Section

# Characters of the choices that stand in the place of a value.
_MAX_CHOICES = 20
_MAX_RECIPES = 12


def first_help(
    config_class: type[Section], recipe: Tree, *, program: str, recipe_name: str, names: Sequence[str]
) -> str:
    """What `--help` prints: the settings of `config_class.FIRST_SETTINGS` with their values in a recipe.

    Args:
        config_class: the root section.
        recipe: the settings of the recipe; what it leaves out has its default.
        program: how the user calls the job, such as "python jobs/train.py".
        recipe_name: its name.
        names: recipes that `--recipe NAME` finds.
    """
    parser = _parser(
        _usage(config_class, program=program),
        f"{_first_line(config_class)} The settings that people change most, with their values in recipe {recipe_name}:",
        epilog=f"recipes: {_list_recipes(names)}",
    )
    by_name = _by_name(config_class)
    defaults = {option.name: option.default for option in options_of(config_class, recipe)}
    settings = parser.add_argument_group("settings")
    for name in config_class.FIRST_SETTINGS:
        if name in defaults:
            note = f"default {_show_words(_value_in(recipe, name, default=defaults[name]))}"
        else:
            note = f"of kind {', '.join(kind for option in by_name[name] for kind in option.kinds)}"
        text = " ".join([*_first_sentence(by_name[name]), f"({note})"])
        settings.add_argument(f"--{name}", metavar=_placeholder(by_name[name][0]), help=text.replace("%", "%%"))
    _add_options(parser, num_settings=len(by_name))
    return parser.format_help()


def full_help(config_class: type[Section], *, program: str, quickstart: Path) -> str:
    """What `--help-all` prints: every setting, grouped by section, at most 100 columns wide."""
    parser = _parser(
        _usage(config_class, program=program),
        f"{_first_line(config_class)} Settings: command line > recipe > the defaults shown here. "
        f"Without --recipe, {quickstart} is the recipe, whatever else is given. A kind that differs from that "
        "of the recipe drops the recipe's settings of that section.",
    )
    by_name = _by_name(config_class)
    _add_options(parser, num_settings=len(by_name))
    by_section: dict[str, dict[str, list[Option]]] = {"": {}}
    for name, variants in by_name.items():
        by_section.setdefault(name.rpartition(".")[0], {})[name] = variants
    for section, of_section in by_section.items():
        group = parser.add_argument_group(section or "settings", _section_help(config_class, section))
        all_kinds = {kind for variants in of_section.values() for variant in variants for kind in variant.kinds}
        for name, variants in of_section.items():
            text = _variants_help(variants, all_kinds).replace("%", "%%")
            group.add_argument(f"--{name}", metavar=variants[0].allowed, help=text)
    return parser.format_help()


def _list_recipes(names: Sequence[str]) -> str:
    """The names of the recipes; where there are many, those of the paper's tables are counted."""
    of_tables = [name for name in names if name.startswith("table")]
    if len(names) <= _MAX_RECIPES or not of_tables:
        return ", ".join(names)
    others = ", ".join(name for name in names if name not in of_tables)
    return f"{others}, and {len(of_tables)} for the paper's tables ({of_tables[0]} ...)"


def _usage(config_class: type[Section], *, program: str) -> str:
    words = f" [{config_class.POSITIONAL.upper()} ...]" if config_class.POSITIONAL else ""
    return f"{program}{words} [--recipe NAME] [--SETTING VALUE ...]"


def _parser(usage: str, description: str, *, epilog: str | None = None) -> argparse.ArgumentParser:
    formatter = functools.partial(argparse.HelpFormatter, width=100, max_help_position=34)
    return argparse.ArgumentParser(
        usage=usage, description=description, epilog=epilog, formatter_class=formatter, add_help=False
    )


def _add_options(parser: argparse.ArgumentParser, *, num_settings: int) -> None:
    options = parser.add_argument_group("options")
    options.add_argument("--recipe", metavar="NAME", help="a recipe by its name, or a YAML file of settings")
    options.add_argument("--print-config", action="store_true", help="print the resolved config as a recipe, and stop")
    options.add_argument("-h", "--help", action="store_true", help="print the settings that people change most")
    options.add_argument("--help-all", action="store_true", help=f"print all {num_settings} settings")


def _by_name(config_class: type[BaseModel]) -> dict[str, list[Option]]:
    """The settings by dotted name; sections of several kinds may have one each."""
    by_name: dict[str, list[Option]] = {}
    for option in options_of(config_class):
        by_name.setdefault(option.name, []).append(option)
    return by_name


def _first_sentence(variants: Sequence[Option]) -> Iterator[str]:
    """What a setting is, without its details, and its choices where it has some."""
    text = next((variant.text for variant in variants if variant.text), "")
    if text:
        yield re.split(r"(?<!\.)\.\s|;\s", text, maxsplit=1)[0].rstrip(".") + "."
    elif "|" in variants[0].allowed and not _has_few_choices(variants[0]):
        yield f"One of {variants[0].allowed.replace('|', ', ')}."


def _placeholder(option: Option) -> str:
    """What stands for the value: its few choices, or the last word of the setting's name."""
    if _has_few_choices(option):
        return option.allowed.removesuffix("|null")
    return option.name.rpartition(".")[2].rpartition("_")[2].upper()


def _has_few_choices(option: Option) -> bool:
    choices = option.allowed.removesuffix("|null")
    return "|" in choices and len(choices) <= _MAX_CHOICES


def _value_in(tree: Tree, name: str, *, default: object) -> object:
    node: object = tree
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            return default
        node = node[part]
    return node


def _section_help(config_class: type[BaseModel], section: str) -> str | None:
    target = find_setting(config_class, {}, section)
    if target is None:  # the root
        return None
    sections = sections_of(target.annotation)
    lines = [f"{', '.join(kinds_of(inner))}{': ' if kinds_of(inner) else ''}{_first_line(inner)}" for inner in sections]
    off = [f"`--{section} null` switches it off."] if type(None) in members_of(target.annotation) else []
    return " ".join(lines + off)


def _variants_help(variants: Sequence[Option], all_kinds: Collection[str]) -> str:
    """The text of one setting, which sections of several kinds may have with other defaults or meanings."""
    kinds_of_default: dict[str, list[str]] = {}
    for variant in variants:
        kinds_of_default.setdefault(_show_default(variant.default), []).extend(variant.kinds)
    shown = [f"{', '.join(kinds)}: {default}" for default, kinds in kinds_of_default.items()]
    default = "; ".join(shown) if len(shown) > 1 else next(iter(kinds_of_default))
    kinds = [kind for kinds in kinds_of_default.values() for kind in kinds]
    only = f"[{', '.join(kinds)}]" if len(shown) == 1 and len(kinds) < len(all_kinds) and kinds else ""
    return " ".join([*filter(None, [only, *dict.fromkeys(variant.text for variant in variants)]), f"({default})"])


def _show_default(default: object) -> str:
    return "required" if default is PydanticUndefined else f"default {_show_words(default)}"


def _show_words(value: object) -> str:
    """A value as one would type it, at most 60 characters."""
    if value is None or value is PydanticUndefined or value in ([], ()):
        return "none"
    items = value if isinstance(value, list | tuple) else [value]
    words = [
        str(item) if isinstance(item, str | Path) and str(item) else json.dumps(item, default=str) for item in items
    ]
    return textwrap.shorten(" ".join(words), 60, placeholder=" ...")


def _first_line(section: type[BaseModel]) -> str:
    return (inspect.getdoc(section) or "").partition("\n")[0]
