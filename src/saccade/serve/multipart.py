"""Files of a multipart body that is in memory already, by Starlette's parser; nothing is written to disk."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from saccade.serve.problems import Refused


class _InMemory(MultiPartParser):
    """Starlette's parser, which keeps files in memory and notices the closing boundary."""

    spool_max_size = sys.maxsize
    ended = False

    def on_end(self) -> None:
        self.ended = True


async def files_of(headers: Headers, body: bytes, *, most: int) -> list[bytes]:
    """The content of every file, in order; raises Refused (400, 413) for what is not whole or not a file."""
    parser = _InMemory(headers, _once(body), max_files=most, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _refused(error.message, most) from None
    except (ValueError, LookupError, TypeError):  # what damaged headers of a part lead the parser to
        raise _malformed("") from None
    try:
        if not parser.ended:
            raise _malformed("it ends before its closing boundary")
        return [await file.read() for _, file in form.multi_items() if isinstance(file, UploadFile)]
    finally:
        await form.close()


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _refused(message: str, most: int) -> Refused:
    if message.startswith("Too many files"):
        return Refused(413, "too_many_images", f"more images than this server's limit of {most}")
    if message.startswith("Too many fields"):
        return _malformed("a part without a file name is no image")
    return _malformed(message.rstrip(".").lower())


def _malformed(why: str) -> Refused:
    return Refused(400, "bad_multipart", "the multipart body is malformed" + (f": {why}" if why else ""))
