"""A YAML recipe and a command line become one checked, frozen config; a config becomes YAML, parameters, a fingerprint.

Not part of the paper. Precedence: command line > recipe > defaults of the classes. A section that several classes may
fill is a union of `Section`s with a `kind: Literal[...]` each; naming another kind than what lies below (default, then
recipe) drops what lay there. Environment variables are never read.
"""

import copy
import difflib
import hashlib
import json
import re
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pipelines.settings.options import Tree, describe, find_setting, help_text, members_of, options_of, sections_of

# pydantic warns of a field `register` because metaclasses have a method of that name; instances have none.
warnings.filterwarnings("ignore", message='Field name "register"')

Given = dict[str, list[list[str]]]  # option name -> the words that followed it, a list each time it was given
SectionT = TypeVar("SectionT", bound="Section")


class JobError(Exception):
    """A failure the user can cure: the message says how, a traceback would only hide it."""


class Section(BaseModel):
    """One section of a config: frozen, knows all its settings, each described by the docstring below it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def load_config(config_class: type[SectionT], *, argv: Sequence[str], quickstart: Path, program: str) -> SectionT:
    """The config of `--recipe FILE` (else of `quickstart`) under the command line's dotted overrides.

    Args:
        config_class: the root section; its docstring and its fields' docstrings are the text of `--help`.
        argv: the command line without the program, such as `["--optimizer.lr", "0.05"]`.
        quickstart: the recipe that is the base when the command line names none.
        program: how the user calls the job, such as "python jobs/train.py".

    Raises:
        SystemExit: 0 after `--help` or `--print-config`; 2 after listing every wrong setting on stderr.
    """
    given, stray = _split(argv)
    if "help" in given:
        print(help_text(config_class, program=program, quickstart=quickstart), end="")
        raise SystemExit(0)
    recipe = " ".join(given.pop("recipe", [[str(quickstart)]])[-1])
    print_config = given.pop("print-config", [])
    stray += [word for words in print_config for word in words]
    try:
        config = _build(config_class, read_recipe(Path(recipe)), given, stray)
    except JobError as error:
        print(
            f"{error}\nerror: wrong settings (recipe {recipe}); `{program} --help` lists all settings", file=sys.stderr
        )
        raise SystemExit(2) from None
    if print_config:
        print(to_yaml(config), end="")
        raise SystemExit(0)
    return config


def run_job(
    config_class: type[SectionT],
    run: Callable[[SectionT], str],
    *,
    quickstart: Path,
    argv: Sequence[str] | None = None,
) -> None:
    """Loads the config, runs the stage on it, prints the summary that it returns.

    Raises:
        SystemExit: as `load_config`; 1 when the run failed, 130 when it was interrupted, with one last line on stderr.
    """
    argv = sys.argv[1:] if argv is None else argv
    config = load_config(config_class, argv=argv, quickstart=quickstart, program=f"python {sys.argv[0]}")
    # `ray job stop` and Kubernetes end a job so: it closes its MLflow run as one that Ctrl-C ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(run(config))
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        cause = getattr(error, "cause", None) or error  # what a Ray task raised is carried by Ray's own error
        message = " ".join(str(cause).split())
        # ValueError itself is a user's error; its subclasses (Arrow's, Unicode's) come from below: show where.
        is_expected = type(cause) is ValueError or isinstance(cause, JobError | OSError)
        if not is_expected or not message:
            traceback.print_exception(error)
            message = f"{type(cause).__name__}: {message}"
        sys.stdout.flush()
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None


def to_yaml(config: BaseModel) -> str:
    """The whole config as YAML, itself a recipe of the same config."""
    return yaml.dump(config.model_dump(mode="json", by_alias=True), Dumper=_Dumper, sort_keys=False, width=100)


def flatten(config: BaseModel) -> dict[str, object]:
    """Dotted name -> value (text, number, bool or None; lists as JSON text): the parameters of an MLflow run."""
    leaves = _leaves(config.model_dump(mode="json", by_alias=True))
    return {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in leaves}


def config_fingerprint(config: BaseModel, *, exclude: Collection[str] = ()) -> str:
    """SHA-256 (64 hex digits) over the settings and their values, without the dotted names or sections in `exclude`."""
    kept = {
        name: value
        for name, value in _leaves(config.model_dump(mode="json", by_alias=True))
        if not any(f"{name}.".startswith(f"{excluded}.") for excluded in exclude)
    }
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# ---- YAML


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may stand only once and 1e-3 is a number."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.composer.ComposerError(None, None, f"duplicate key {key!r}", node.start_mark)
        return node


class _Dumper(yaml.SafeDumper):
    """Safe YAML with lists on one line, which `_Loader` reads back as the same values."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)
for _yaml_class in (_Loader, _Dumper):
    _yaml_class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def read_recipe(path: Path) -> Tree:
    """The settings of a recipe, not yet checked.

    Raises:
        JobError: there is no such file, or it is not a mapping in YAML.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise JobError(f"recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError(f"recipe {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise JobError(f"recipe {path}: given {_show(tree)}, allowed: a mapping of settings (name: value)")
    return tree


# ---- recipe + command line -> config


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
    """Raises JobError with one line a wrong setting."""
    problems = {word: f"{word!r}: unexpected, a setting is given as --name value" for word in stray}
    tree = _complete(recipe, config_class)
    for name in sorted(given, key=_outer_kinds_first):
        words = [word for words in given[name] for word in words]
        target, switched = find_setting(config_class, tree, name), True
        if target is None and name.startswith("no-") and not words:
            target, switched = find_setting(config_class, tree, name.removeprefix("no-")), False
        if target is None:
            problems[name] = _unknown(config_class, tree, name, " ".join(words))
        elif words:
            _assign(tree, target.path, _read_value(given[name], target.annotation))
        elif bool in members_of(target.annotation):
            _assign(tree, target.path, switched)
        else:
            problems[name] = f"{name}: given no value, allowed: {describe(target.annotation)}"
    return _validated(config_class, tree, problems)


def with_values(config_class: type[SectionT], recipe: Tree, values: Mapping[str, object]) -> SectionT:
    """The config of a recipe with other values for some dotted names, settings or whole sections.

    Raises:
        JobError: one line a wrong setting.
    """
    problems: dict[str, str] = {}
    tree = _complete(copy.deepcopy(recipe), config_class)
    for name in sorted(values, key=_outer_kinds_first):
        target = find_setting(config_class, tree, name)
        if target is None:
            problems[name] = _unknown(config_class, tree, name, values[name])
        else:
            _assign(tree, target.path, copy.deepcopy(values[name]))
    return _validated(config_class, tree, problems)


def changed(config: SectionT, settings: Mapping[str, object]) -> SectionT:
    """The config with other values for some dotted names.

    Raises:
        JobError: one line a wrong setting.
    """
    return with_values(type(config), config.model_dump(mode="json", by_alias=True), settings)


def _outer_kinds_first(name: str) -> tuple[int, bool]:
    return name.count("."), not name.endswith("kind")


def _validated(config_class: type[SectionT], tree: Tree, problems: dict[str, str]) -> SectionT:
    tree = _complete(tree, config_class)
    for name, value in _leaves(tree):
        target = find_setting(config_class, tree, name)
        # pydantic reads true as 1, and YAML reads `epochs: yes` as true
        is_setting = target is not None and _at(tree, target.path) is value  # or it lies inside of a value of any kind
        if isinstance(value, bool) and target and is_setting and not _fits(value, target.annotation, strict=True):
            problems.setdefault(name, f"{name}: given {_show(value)}, allowed: {describe(target.annotation)}")
    try:
        config = config_class.model_validate(tree)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            name, line = _problem(config_class, tree, details)
            problems.setdefault(name, line)
    if problems:
        raise JobError("\n".join(problems.values()))
    return config


def _at(tree: Tree, path: Sequence[str]) -> object:
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _complete(given: Tree, section: type[BaseModel], default: BaseModel | None = None) -> Tree:
    """A copy of `given` in which a section given in part has the rest (its kind, say) from the class's default."""
    tree = (default.model_dump(by_alias=True) if default else {}) | given
    for name, value in given.items():
        if not isinstance(value, dict) or name not in section.model_fields:
            continue
        field = section.model_fields[name]
        own = getattr(default, name) if default else field.get_default(call_default_factory=True)
        own_kind = getattr(own, "kind", None)
        own = own if isinstance(own, BaseModel) and value.get("kind", own_kind) == own_kind else None
        inner = [type(own)] if own else sections_of(field.annotation, value)
        tree[name] = _complete(value, inner[0], own) if inner else dict(value)
    return tree


def _assign(tree: Tree, path: Sequence[str], value: object) -> None:
    node = tree
    for name in path[:-1]:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    if path[-1] == "kind" and len(path) > 1 and node.get("kind") != value:
        node.clear()
    node[path[-1]] = value


def _read_value(given: list[list[str]], annotation: Any) -> object:
    """The first reading of the words that the type accepts: null, number / list / mapping, text, a list of all words.

    Repeated options add up to a list where a list is allowed; elsewhere the last one counts.
    """
    words = [word for words in given for word in words]
    values = [_parse_word(word) for word in words]
    together = [item for value in values for item in (value if isinstance(value, list) else [value])]
    null = [None] if words[-1].lower() in ("null", "none") else []
    last = [*null, values[-1], words[-1]] if len(given[-1]) == 1 else []
    readings = [*last, together, words] if len(words) == 1 else [together, words, *last]
    return next((reading for reading in readings if _fits(reading, annotation)), (last or readings)[0])


def _parse_word(word: str) -> object:
    try:
        value = yaml.load(word, Loader=_Loader) if word[:1] in ("[", "{") else json.loads(word)
    except (yaml.YAMLError, ValueError):
        return word
    return word if isinstance(value, str) else value


def _fits(value: object, annotation: Any, *, strict: bool = False) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value, strict=strict)
    except ValidationError:
        return False
    return True


# ---- wrong settings, one line each


def _problem(config_class: type[BaseModel], tree: Tree, error: ErrorDetails) -> tuple[str, str]:
    """The dotted name at fault and the line about it."""
    name, value = _dotted(tree, error), error["input"]
    if error["type"] == "extra_forbidden":
        return name, _unknown(config_class, tree, name, value)
    if error["type"].startswith("union_tag"):
        name, value = f"{name}.kind", value.get("kind")
    given = "needed" if error["type"] in ("missing", "union_tag_not_found") else f"given {_show(value)}"
    target = find_setting(
        config_class, tree, re.sub(r"(\.\d+)+$", "", name)
    )  # an item of a list is described by the list
    if target and error["msg"].startswith(("Input", "Field", "Unable")):
        return name, f"{name}: {given}, allowed: {describe(target.annotation)}"
    message = error["msg"].removeprefix("Value error, ")
    return name, f"{name}: {message}" if isinstance(value, dict) else f"{name}: {given}, {message}"


def _dotted(tree: Tree, error: ErrorDetails) -> str:
    """The location without the names of union members, which stand in no recipe."""
    node: Any = tree
    parts = []
    for depth, part in enumerate(error["loc"]):
        inside = part in node if isinstance(node, dict) else isinstance(node, list | tuple) and isinstance(part, int)
        if inside or (error["type"] == "missing" and depth == len(error["loc"]) - 1):
            parts.append(str(part))
            node = node[part] if inside else None
    return ".".join(parts) or "recipe"


def _unknown(config_class: type[BaseModel], tree: Tree, name: str, value: object) -> str:
    known = [option.name for option in options_of(config_class, tree)]
    known += sorted({option.rpartition(".")[0] for option in known} - {""})

    def likeness(other: str) -> tuple[float, float]:
        pairs = (name, other), (name.rpartition(".")[2], other.rpartition(".")[2])
        whole, last = (difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return max(whole, last), whole

    kinds = [kind for option in options_of(config_class) if option.name == name for kind in option.kinds]
    hint = f"only of kind {', '.join(kinds)}" if kinds else f"the closest is {max(known, key=likeness)}"
    return f"{name}: given {_show(value)}, no such setting, {hint}"


def _show(value: object) -> str:
    return textwrap.shorten(json.dumps(value, default=str, skipkeys=True), 80, placeholder=" ...")
