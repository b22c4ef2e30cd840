"""The names that people give to splits, in folders, files and tables, become train, val, test or unused."""

from t3d_core.datasets.records import SPLITS

_SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation"),
    "test": ("test", "testing"),
    "unused": ("unused",),
}
_ENDINGS = ("", "set", "_set", "-set", " set")  # training_set, as in many a tutorial
_SPLIT_BY_NAME = {
    spelling + ending: split for split, spellings in _SPELLINGS.items() for spelling in spellings for ending in _ENDINGS
}

SHOWN_SPLITS = f"{', '.join(SPLITS)} (valid, validate and validation mean val)"


def split_named(name: str) -> str | None:
    """Give the split that a name means, in any letter case; None where it means none."""
    return _SPLIT_BY_NAME.get(name.strip().lower())
