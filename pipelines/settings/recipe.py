"""A recipe: settings as YAML, to be read and written."""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from pipelines.settings.options import Tree
from pipelines.settings.problems import show_value
from pipelines.settings.section import expand_home
from t3d_core.errors import UserError


class RecipeLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads 1e-3 as a number."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse a mapping that holds a key twice."""
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.composer.ComposerError(None, None, f"duplicate key {key!r}", node.start_mark)
        return node


class RecipeDumper(yaml.SafeDumper):
    """Safe YAML with lists on one line, which `RecipeLoader` reads back as the same values."""


RecipeDumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)
for _yaml_class in (RecipeLoader, RecipeDumper):
    _yaml_class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def recipe_names(folder: Path) -> list[str]:
    """The recipes of a job, as `--recipe NAME` finds them."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_recipe(recipe: str, *, folder: Path) -> Path:
    """The file that `--recipe` means: a path, or the bare name of a recipe in `folder`.

    Raises:
        UserError: there is no recipe of that name; the message lists the recipes that exist.
    """
    path = Path(expand_home(recipe))
    if path.is_file() or len(path.parts) > 1:
        return path
    named = folder / f"{recipe.removesuffix('.yaml')}.yaml"
    if named.is_file():
        return named
    names = recipe_names(folder)
    closest = difflib.get_close_matches(recipe, names, n=1)
    hint = f"the closest is {closest[0]}; " if closest else ""
    raise UserError(f"recipe {recipe}: no such file or recipe, {hint}recipes of this job: {', '.join(names) or 'none'}")


def read_recipe(path: Path) -> Tree:
    """The settings of a recipe, not yet checked.

    Raises:
        UserError: there is no such file, or it is not a mapping in YAML.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except OSError as error:
        raise UserError(f"recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"recipe {path}: given {show_value(tree)}, allowed: a mapping of settings (name: value)")
    return tree


def to_yaml(config: BaseModel) -> str:
    """The whole config as YAML, which is a recipe of the same config."""
    return yaml.dump(config.model_dump(mode="json", by_alias=True), Dumper=RecipeDumper, sort_keys=False, width=100)
