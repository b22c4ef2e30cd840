"""One name has one form, however a system writes its accents."""

import os

from t3d_core.datasets.unicode_form import is_utf8, nfc, nfd, printable


def test_accents_are_one_letter_or_two():
    assert nfc("Cafe\u0301") == nfc("Caf\u00e9") == "Caf\u00e9"
    assert nfd("Caf\u00e9") == nfd("Cafe\u0301") == "Cafe\u0301"


def test_bytes_that_are_not_utf8_stay_what_they_are():
    name = os.fsdecode(b"Cafe\xcc\x81 \xff.mp4")
    assert os.fsencode(nfc(name)) == b"Caf\xc3\xa9 \xff.mp4"


def test_bytes_that_are_not_utf8_are_seen():
    assert is_utf8("run")
    assert is_utf8("Caf\u00e9 \U0001f600")
    assert not is_utf8(os.fsdecode(b"Caf\xe9"))


def test_bytes_that_are_not_utf8_are_shown_as_escapes():
    assert printable(os.fsdecode(b"Caf\xe9")) == r"Caf\xe9"
    assert printable("Caf\u00e9") == "Caf\u00e9"
