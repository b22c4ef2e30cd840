"""Which addresses the server reads for a client: none that the client could not read itself, but those that are listed.

Whoever names an address makes the server send a request from where it stands, behind firewalls and with credentials
(server-side request forgery). So an address is refused unless the settings allow it.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import SplitResult, unquote, urlsplit

from pipelines.predict.videos import named_video
from pipelines.prepare.local_copies import LocalFile, TooLargeError
from pipelines.prepare.web_download import is_web_address
from pipelines.prepare.web_videos import WebRoot
from pipelines.serve.config import ServeConfig
from pipelines.serve.refusal import Refusal, raise_if_disk_is_full
from t3d_core.errors import UserError
from t3d_core.video.container import VideoError


def address_in(body: bytes) -> str:
    """Read the address of a request's JSON.

    Raises:
        Refusal: 400, it holds none.
    """
    try:
        address = json.loads(body)["address"]
    except (ValueError, TypeError, KeyError, RecursionError):
        address = None
    if not isinstance(address, str):
        raise Refusal(400, 'the JSON must be {"address": "https://..."}')
    return address


def check_address(address: str, config: ServeConfig) -> bool:
    """Check that the settings allow an address; return whether it is listed in `allowed_addresses`.

    Raises:
        Refusal: 400 for what is no address, 403 for one that is neither listed nor, if that is allowed, on the web.
    """
    parts = _parts_of(address)
    # pyarrow takes settings of a store from there, such as the server that it asks with our credentials.
    if not is_web_address(address) and ("?" in address or "#" in address):
        raise Refusal(403, "the address of a store must not hold `?` or `#`")
    if any(_lies_below(parts, urlsplit(prefix)) for prefix in config.allowed_addresses):
        return True
    if not config.public_addresses:
        raise Refusal(403, f"this server does not read the address: {_allowed(config.allowed_addresses)}")
    if not is_web_address(address):
        raise Refusal(403, "this server reads http:// and https:// addresses, and those of its allowed_addresses")
    return False


@contextmanager
def open_address(address: str, config: ServeConfig) -> Iterator[LocalFile]:
    """Download the video at an address, or copy it from a store, for as long as the context lasts.

    Raises:
        Refusal: as `check_address`; 413 for a large video, 422 if its server or store does not answer, 507 if the disk
            is full.
        VideoError: it is not there, or not on a public server and not listed.
    """
    is_listed = check_address(address, config)
    max_bytes = int(config.limits.mib * 2**20)
    with ExitStack() as stack:
        try:
            if is_web_address(address):
                # Listed servers are trusted with what they hold, not with where they redirect to.
                root = WebRoot(
                    only_public=not is_listed, seconds=config.limits.upload_seconds, max_redirects=0 if is_listed else 5
                )
                file = stack.enter_context(root.open_locally(address, max_bytes=max_bytes))
            else:
                file = stack.enter_context(named_video(address).open(max_bytes=max_bytes))
        except TooLargeError as error:
            raise Refusal(413, f"the video has more than {config.limits.mib:g} MiB") from error
        except VideoError:
            raise
        except OSError as error:
            raise_if_disk_is_full(error)
            raise Refusal(422, f"the address cannot be read: {error}") from error
        except UserError as error:
            raise Refusal(422, f"the address cannot be read: {error}") from error
        yield file


def _allowed(prefixes: Iterable[str]) -> str:
    listed = ", ".join(prefixes)
    return f"send the video itself, or an address that begins with {listed}" if listed else "send the video itself"


def _parts_of(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        is_whole = bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole = False
    if not is_whole or any(character <= " " or character == "\\" or character == "\x7f" for character in address):
        raise Refusal(400, "address must be a whole address, such as https://example.com/clip.mp4")
    if "@" in parts.netloc:
        raise Refusal(400, "address must not hold a name or a password")
    return parts


def _lies_below(parts: SplitResult, prefix: SplitResult) -> bool:
    """Compare host and port exactly and the path by its beginning; a path with `..` in any writing is below nothing."""
    path = parts.path
    for _ in range(3):  # servers differ in how often they decode
        path = unquote(path).replace("\\", "/")
        if ".." in path.split("/"):
            return False
    return (parts.scheme, parts.netloc.lower()) == (prefix.scheme, prefix.netloc.lower()) and parts.path.startswith(
        prefix.path
    )
