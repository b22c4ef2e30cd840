import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.training.mirrored_labels import mirrored_classes, mirrored_labels, partners

CLASSES = ("clap", "move_left", "move_right", "throw_left", "throw_right")


@pytest.mark.parametrize(
    "sides",
    [
        {"move_left": "move_right"},
        {"move_right": "move_left"},
        {"move_left": "move_right", "move_right": "move_left"},
    ],
)
def test_a_pair_is_the_same_given_once_or_both_ways_round(sides):
    assert partners(sides) == {"move_left": "move_right", "move_right": "move_left"}
    assert mirrored_labels(sides, CLASSES) == [0, 2, 1, 3, 4]


def test_without_pairs_every_class_keeps_its_label():
    assert mirrored_labels({}, CLASSES) == [0, 1, 2, 3, 4]


@given(order=st.permutations(range(10)), num_pairs=st.integers(0, 5))
def test_mirrored_twice_every_label_is_what_it_was(order, num_pairs):
    names = [f"class {number}" for number in range(10)]
    sides = {names[order[2 * pair]]: names[order[2 * pair + 1]] for pair in range(num_pairs)}
    label_K = mirrored_labels(sides, names)
    assert [label_K[label] for label in label_K] == [*range(10)]
    assert sum(label != place for place, label in enumerate(label_K)) == 2 * num_pairs


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"a": "a"}, r"flip gives class 'a' the partner 'a': give every class that changes sides one other class"),
        ({"a": "b", "c": "b"}, r"flip gives class 'b' the partner 'c' and the partner 'a': give every class"),
        ({"a": "b", "b": "c"}, r"flip gives class 'b' the partner 'c' and the partner 'a': give every class"),
    ],
)
def test_a_class_has_one_partner_which_is_another_class(sides, message):
    with pytest.raises(ValueError, match=message):
        partners(sides)


def test_unknown_classes_are_refused_with_the_nearest_ones():
    message = (
        r"flip names 2 classes that the data do not have: 'move_lft' \(the nearest is 'move_left'\), 'Throw_right' "
        r"\(the nearest is 'throw_right'\): give names of the 5 classes of the data"
    )
    with pytest.raises(ValueError, match=message):
        mirrored_labels({"move_lft": "move_right", "throw_left": "Throw_right"}, CLASSES)


def test_names_are_compared_as_they_look():
    assert mirrored_labels({"gauche e\u0301": "droite"}, ["gauche \u00e9", "droite"]) == [1, 0]


def test_each_pair_of_classes_that_change_sides_is_given_once_with_the_names_of_the_data():
    names = ("droite", "clap", "gauche e\u0301")
    for sides in ({"gauche \u00e9": "droite"}, {"gauche \u00e9": "droite", "droite": "gauche \u00e9"}):
        assert mirrored_classes(sides, names) == ((names[0], names[2]),)
    assert mirrored_classes({}, names) == ()
