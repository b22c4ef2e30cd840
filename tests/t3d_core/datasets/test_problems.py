"""Many errors of one kind become one."""

import pytest

from t3d_core.datasets.problems import Problems
from t3d_core.errors import UserError


def collected(*messages):
    problems = Problems()
    for message in messages:
        with problems:
            raise UserError(message)
    return problems


def test_without_errors_nothing_is_raised():
    collected().check()


def test_one_error_stays_as_it_is():
    with pytest.raises(UserError, match=r"^line 2: no label$"):
        collected("line 2: no label").check()


def test_of_many_errors_the_number_and_the_first_are_reported_in_one_line():
    with pytest.raises(UserError, match=r"^2 errors: a; b$"):
        collected("a", "b").check()
    with pytest.raises(UserError, match=r"^1,005 errors: 0; 1; 2; \.\.\.$"):
        collected(*map(str, range(1005))).check()


def test_errors_of_the_code_are_not_collected():
    with pytest.raises(KeyError), Problems():
        raise KeyError
