"""Pictures for people: a job whose work is done does not fail because one of them cannot be drawn."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOG = logging.getLogger(__name__)


@contextmanager
def optional_picture(name: str) -> Iterator[None]:
    """Draw a picture: an error in the block is one warning with the name and the reason, and the job continues."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        _LOG.warning("%s is not drawn, the job continues without it: %s: %s", name, type(error).__name__, reason)
