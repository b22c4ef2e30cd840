"""The body of a request becomes a temporary file, under a limit of bytes and of time; it is never in memory whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from pipelines.prepare.local_copies import LocalFile, new_copy
from pipelines.serve.config import LimitsConfig
from pipelines.serve.refusal import Refusal, raise_if_disk_is_full

_MAX_JSON_BYTES = 64 << 10


@asynccontextmanager
async def uploaded_file(request: Request, limits: LimitsConfig) -> AsyncIterator[LocalFile]:
    """Write the body to a file, which is deleted at the end of the block.

    Raises:
        Refusal: 400 for an empty or broken-off body, 408 for a slow one, 413 for a large one, 507 if the disk is full.
    """
    max_bytes = int(limits.mib * 2**20)
    _check_stated_bytes(request, max_bytes)
    with new_copy(suffix="") as copy:
        try:
            async for chunk in _chunks(request, max_bytes, seconds=limits.upload_seconds):
                copy.write(chunk)
            file = copy.local_file()
        except OSError as error:
            raise_if_disk_is_full(error)
            raise
        if not file.num_bytes:
            raise Refusal(400, "the body is empty: send the bytes of a video (`curl --data-binary @clip.mp4`)")
        yield file


async def read_small_body(request: Request, limits: LimitsConfig) -> bytes:
    """Read a body of at most 64 KiB.

    Raises:
        Refusal: as `uploaded_file`.
    """
    _check_stated_bytes(request, _MAX_JSON_BYTES)
    chunks = _chunks(request, _MAX_JSON_BYTES, seconds=limits.upload_seconds)
    return b"".join([chunk async for chunk in chunks])


async def _chunks(request: Request, max_bytes: int, *, seconds: float) -> AsyncIterator[bytes]:
    """The body piece by piece; uvicorn reads no more of it than is taken here."""
    stream = aiter(request.stream())
    deadline = asyncio.get_running_loop().time() + seconds
    num_bytes = 0
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Refusal(408, f"the upload took more than {seconds:g} s") from None
        except ClientDisconnect:
            raise Refusal(400, "the upload broke off") from None
        if chunk is None:
            return
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _check_stated_bytes(request: Request, max_bytes: int) -> None:
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, f"the body has more than {max_bytes / 2**20:g} MiB")
