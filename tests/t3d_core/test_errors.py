from t3d_core.errors import describe_error


def test_an_error_without_words_is_called_by_its_type():
    assert describe_error(ValueError("no frame")) == "no frame"
    assert describe_error(AssertionError()) == "AssertionError"
