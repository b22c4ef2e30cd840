"""Classes that change sides become the label of every mirrored clip: `move_left` flipped shows `move_right`.

Paper: 4.4 flips half of the clips and keeps their labels. Legend: K classes.
"""

import difflib
from collections.abc import Mapping, Sequence

from t3d_core.datasets.unicode_form import nfc
from t3d_core.errors import UserError

_MAX_NAMED = 5


def partners(sides: Mapping[str, str]) -> dict[str, str]:
    """Return the partner of every class that changes sides, in NFC: `sides` and the same the other way round.

    Raises:
        UserError: a class is its own partner, or would have two.
    """
    partner_of: dict[str, str] = {}
    for one, other in sides.items():
        for name, partner in ((nfc(one), nfc(other)), (nfc(other), nfc(one))):
            known = partner_of.setdefault(name, partner)
            if name == partner or known != partner:
                raise UserError(
                    f"flip gives class {name!r} the partner {partner!r}"
                    f"{'' if known == partner else f' and the partner {known!r}'}: give every class that changes sides "
                    "one other class"
                )
    return partner_of


def mirrored_labels(sides: Mapping[str, str], class_names: Sequence[str]) -> list[int]:
    """Return the label of a mirrored clip by the label of the clip (K of them); classes without a partner keep theirs.

    Args:
        sides: class -> class on the other side, given once or both ways round.
        class_names: label -> name.

    Raises:
        UserError: as `partners`; or there is no class of such a name.
    """
    partner_of = partners(sides)
    label_of = {nfc(name): label for label, name in enumerate(class_names)}
    if unknown := [name for name in partner_of if name not in label_of]:
        named = ", ".join(_with_nearest(name, label_of) for name in unknown[:_MAX_NAMED])
        raise UserError(
            f"flip names {len(unknown)} classes that the data do not have: {named}: give names of the "
            f"{len(class_names)} classes of the data"
        )
    return [
        label_of[partner_of[nfc(name)]] if nfc(name) in partner_of else label for label, name in enumerate(class_names)
    ]


def mirrored_classes(sides: Mapping[str, str], class_names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of classes that change sides, each once, in the order and with the names of `class_names`.

    Raises:
        UserError: as `mirrored_labels`.
    """
    label_K = mirrored_labels(sides, class_names)
    return tuple((class_names[one], class_names[other]) for one, other in enumerate(label_K) if one < other)


def _with_nearest(name: str, known: Mapping[str, int]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"{name!r} (the nearest is {near[0]!r})" if near else repr(name)
