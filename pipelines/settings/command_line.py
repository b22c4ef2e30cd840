"""A command line and a recipe become a checked config; the command line overrides the recipe."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_origin

import yaml

from pipelines.settings.build import assign, complete, fits, outer_kinds_first, validated
from pipelines.settings.help import first_help, full_help
from pipelines.settings.options import Tree, describe, find_setting, members_of
from pipelines.settings.problems import describe_unknown
from pipelines.settings.recipe import RecipeLoader, find_recipe, read_recipe, recipe_names, to_yaml
from pipelines.settings.section import SectionT
from t3d_core.errors import UserError

Given = dict[str, list[list[str]]]  # option name -> the words that followed it, a list each time it was given


def load_config(config_class: type[SectionT], *, argv: Sequence[str], quickstart: Path, program: str) -> SectionT:
    """The config of `--recipe FILE` (by default `quickstart`) with the dotted overrides of the command line.

    Args:
        config_class: the root section; its docstring and its fields' docstrings are the text of `--help`.
        argv: the command line without the program, such as `["--optimizer.lr", "0.05"]`.
        quickstart: the recipe that is the base when the command line names none.
        program: how the user calls the job, such as "python jobs/train.py".

    Raises:
        SystemExit: 0 after `--help`, `--help-all` or `--print-config`; 2 after listing every wrong setting on stderr.
    """
    given, stray = _split(argv)
    words = given.pop("recipe", [[str(quickstart)]])[-1]
    num_words = 1 if config_class.POSITIONAL else len(words)
    recipe, stray = " ".join(words[:num_words]), [*stray, *words[num_words:]]
    if "help-all" in given or ("help" in given and not config_class.FIRST_SETTINGS):
        _print_and_stop(full_help(config_class, program=program, quickstart=quickstart))
    print_config = given.pop("print-config", [])
    stray += [word for words in print_config for word in words]
    try:
        file = find_recipe(recipe, folder=quickstart.parent)
        if "help" in given:
            tree = complete(read_recipe(file), config_class)
            names = recipe_names(quickstart.parent)
            _print_and_stop(first_help(config_class, tree, program=program, recipe_name=file.stem, names=names))
        config = _build(config_class, read_recipe(file), given, stray)
    except UserError as error:
        print(
            f"{error}\nerror: wrong settings (recipe {recipe}); `{program} --help-all` lists all settings",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    if print_config:
        _print_and_stop(to_yaml(config))
    return config


def _print_and_stop(text: str) -> NoReturn:
    print(text, end="")
    raise SystemExit(0)


def _split(argv: Sequence[str]) -> tuple[Given, list[str]]:
    """The options given, and the words before any option."""
    given: Given = {}
    stray: list[str] = []
    words = stray
    for word in argv:
        if word.startswith("--") or word == "-h":
            name, equals, value = word[2:].partition("=") if word != "-h" else ("help", "", "")
            words = [value] if equals else []
            given.setdefault(name, []).append(words)
        else:
            words.append(word)
    return given, stray


def _build(config_class: type[SectionT], recipe: Tree, given: Given, stray: Sequence[str]) -> SectionT:
    """Raises UserError with one line a wrong setting."""
    tree = complete(recipe, config_class)
    if config_class.POSITIONAL:
        given, stray = _with_positional(config_class, tree, given, stray), []
    problems = {word: f"{word!r}: unexpected, a setting is given as --name value" for word in stray}
    for name in sorted(given, key=outer_kinds_first):
        words = [word for words in given[name] for word in words]
        target, switched = find_setting(config_class, tree, name), True
        if target is None and name.startswith("no-") and not words:
            target, switched = find_setting(config_class, tree, name.removeprefix("no-")), False
        if target is None:
            problems[name] = describe_unknown(config_class, tree, name, " ".join(words))
        elif words:
            assign(tree, target.path, _read_value(given[name], target.annotation))
        elif bool in members_of(target.annotation):
            assign(tree, target.path, switched)
        else:
            problems[name] = f"{name}: no value given, allowed: {describe(target.annotation)}"
    return validated(config_class, tree, problems)


def _with_positional(config_class: type[SectionT], tree: Tree, given: Given, stray: Sequence[str]) -> Given:
    """The options, where words that no option takes are the value of `POSITIONAL`.

    A setting of one value takes the first word behind its name, a switch only one that it accepts, and `--no-SWITCH`
    none; a list takes all words up to the next option:

        clip.mp4 --model champion other.mp4 --explain third.mp4      three videos
    """
    assert config_class.POSITIONAL
    words, options = list(stray), dict[str, list[list[str]]]()
    for name, occurrences in given.items():
        target, is_negated = find_setting(config_class, tree, name), False
        if target is None and name.startswith("no-"):
            target, is_negated = find_setting(config_class, tree, name.removeprefix("no-")), True
        if name == config_class.POSITIONAL or target is None or _takes_list(target.annotation):
            options[name] = occurrences
            continue
        options[name] = []
        for of_option in occurrences:
            num_taken = 1
            if bool in members_of(target.annotation) and of_option:
                value = _read_value([of_option[:1]], target.annotation)
                num_taken = int(not is_negated and fits(value, target.annotation))
            options[name].append(of_option[:num_taken])
            words += of_option[num_taken:]
    if words:
        options.setdefault(config_class.POSITIONAL, []).insert(0, words)
    return options


def _takes_list(annotation: Any) -> bool:
    return any(get_origin(member) in (list, tuple, dict, set) for member in members_of(annotation))


def _read_value(given: list[list[str]], annotation: Any) -> object:
    """The first reading of the words that the type accepts: null, number / list / mapping, text, a list of all words.

    Repeated options add up to a list where a list is allowed; elsewhere the last one counts.
    """
    words = [word for words in given for word in words]
    values = [_parse_word(word) for word in words]
    together = [item for value in values for item in (value if isinstance(value, list) else [value])]
    null: list[object] = [None, []] if words[-1].lower() in ("null", "none") else []
    last = [*null, values[-1], words[-1]] if len(given[-1]) == 1 else []
    readings = [*last, together, words] if len(words) == 1 else [together, words, *last]
    return next((reading for reading in readings if fits(reading, annotation)), (last or readings)[0])


def _parse_word(word: str) -> object:
    try:
        value = yaml.load(word, Loader=RecipeLoader) if word[:1] in ("[", "{") else json.loads(word)
    except (yaml.YAMLError, ValueError):
        return word
    return word if isinstance(value, str) else value
