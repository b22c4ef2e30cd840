"""Listed paths without a file become messages: how many look like which mistake in the list, and the first of each."""

from collections.abc import Collection, Iterable, Sequence

from t3d_core.datasets.unicode_form import is_utf8, nfc, printable
from t3d_core.datasets.video_files import without_extension


def notes_on_missing(missing: Collection[str], *, file_names: Iterable[str]) -> tuple[str, ...]:
    """What may be wrong with the paths of missing videos, a line for each kind; nothing where nothing is known.

    Args:
        missing: Listed paths that have no file.
        file_names: The files below the root that the list does not name.
    """
    notes = []
    if undecodable := [path for path in missing if not is_utf8(path)]:
        notes.append(
            f"'{printable(undecodable[0])}' is missing, and is not UTF-8{and_more(undecodable)}: save the CSV as UTF-8 "
            f"(Excel: CSV UTF-8)"
        )
    if near := find_near_misses(missing, file_names=file_names):
        path, name = near[0]
        notes.append(
            f"{path!r} is missing, but there is {name!r}{and_more(near)}: write names with their extension, and in "
            f"their letter case"
        )
    return tuple(notes)


def describe_none_found(
    missing: Collection[str],
    *,
    num_listed: int,
    name: str,
    root: str,
    first: str,
    file_names: Collection[str],
    holds: str,
) -> str:
    """The error that no listed video is below the root.

    Args:
        missing: The listed paths, in every way in which they can be read.
        num_listed: Number of listed videos.
        name: Name of the data set.
        root: Folder or address of the videos.
        first: Where the first video would be.
        file_names: The files below the root.
        holds: What the root holds, in a few words.
    """
    notes = notes_on_missing(missing, file_names=file_names)
    cure = "; ".join(notes) or "give the folder that the listed paths start from as root"
    return (
        f"not one of the {num_listed} listed videos of {name} is below root {root!r} (the first would be {first}, "
        f"while the root holds {holds}): {cure}"
    )


def find_near_misses(missing: Iterable[str], *, file_names: Iterable[str]) -> list[tuple[str, str]]:
    """Find the missing paths that differ from a file in extension or letter case only, each with that file."""
    names: dict[str, str] = {}
    for name in sorted(file_names):
        lower = nfc(name).lower()
        names[lower] = name
        names.setdefault(without_extension(lower), name)
    pairs = []
    for path in missing if names else ():
        lower = nfc(path).lower()
        if near := names.get(lower) or names.get(without_extension(lower)):
            pairs.append((path, near))
    return pairs


def and_more(shown: Sequence[object]) -> str:
    """How many there are besides the first, in brackets; nothing where it is the only one."""
    return f" (and {len(shown) - 1:,} more)" if len(shown) > 1 else ""
