"""Names in one Unicode form: macOS writes an accent as a letter of its own (NFD), other systems write one letter (NFC).

Both look alike and are different strings. Names are compared in NFC; a file is opened by its name on disk.
"""

import os
import unicodedata


def nfc(text: str) -> str:
    """Give the text in NFC; bytes that are not UTF-8 stay the surrogates that they are."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    """Give the text in NFD, the form in which a Mac may have written it."""
    return text if text.isascii() else unicodedata.normalize("NFD", text)


def is_utf8(text: str) -> bool:
    """Whether a text holds no bytes that are not UTF-8: these stand in it as surrogates."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def printable(text: str) -> str:
    r"""Write bytes that are not UTF-8 as \xNN, so that a name can be stored and logged."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
