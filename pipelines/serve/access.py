"""Who may ask: those with the token, or everyone who reaches this machine alone; never a web page of somebody else.

The token is compared as a hash, so that neither its length nor its beginning shows in the time of the answer, and so
that Serve's records of the deployment do not hold it.
"""

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Mapping

from pipelines.serve.refusal import Refusal
from t3d_core.errors import UserError

TOKEN_VARIABLE = "T3D_SERVE_TOKEN"
_MIN_TOKEN = 16


def token_digest(*, host: str, without_token: bool) -> str | None:
    """SHA-256 of the token in the environment; None if none is needed.

    Raises:
        UserError: the token is too short, or there is none and others than this machine could reach the server.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        if len(token) < _MIN_TOKEN:
            raise UserError(
                f"{TOKEN_VARIABLE} has {len(token)} characters, which can be guessed: give at least {_MIN_TOKEN}, such "
                "as `openssl rand -hex 32` makes"
            )
        return _digest(token)
    if not is_loopback(host) and not without_token:
        raise UserError(
            f"host {host!r} lets other machines in, and there is no token: set {TOKEN_VARIABLE} (`openssl rand -hex "
            "32` makes one), or give --without_token true to let everyone in"
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_access(headers: Mapping[str, str], *, digest: str | None, is_local: bool) -> None:
    """Check the token of a request; without one, that no web page of another site sends it.

    Args:
        headers: of the request.
        digest: of `token_digest`.
        is_local: the server listens on loopback alone.

    Raises:
        Refusal: 401 without the token, 403 for a web page of another site.
    """
    if digest is not None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(_digest(token.strip()), digest):
            raise Refusal(401, "this server needs a token: send the header `Authorization: Bearer TOKEN`")
        return
    check_host(headers, is_local=is_local)
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and origin.partition("://")[2] != host:
        raise Refusal(403, f"web pages of {origin} may not use this server")


def check_host(headers: Mapping[str, str], *, is_local: bool) -> None:
    """Check that a server of this machine alone is asked by that name.

    A page whose name was pointed at 127.0.0.1 would otherwise read answers with its visitor's rights (DNS rebinding).

    Raises:
        Refusal: 403, it is asked by another name.
    """
    host = headers.get("host", "")
    if is_local and not is_loopback(_without_port(host)):
        raise Refusal(403, f"this server answers to localhost and 127.0.0.1, not to {host!r}")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
