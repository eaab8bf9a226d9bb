"""Files of a multipart body that is in memory already; nothing is written to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from saccade.serve.problems import Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_HEADER_BYTES = 8_000  # of one part


def files_of(content_type: str, body: bytes, *, most: int) -> list[bytes]:
    """The content of every file, in order; raises Refused (400, 413) for what is not whole or not a file.

    content_type: the request's header, with the boundary. most: files that may be in it.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise _malformed("its Content-Type names no boundary")
    files = _Files(most)
    try:
        parser = MultipartParser(boundary, files.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise _malformed("") from None
    if not files.ended:
        raise _malformed("it ends before its closing boundary")
    return [bytes(content) for content in files.contents]


class _Files:
    """Collects what the parser finds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.ended = False
        self.contents: list[bytearray] = []
        self._name, self._value, self._disposition = b"", b"", b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.begin,
            "on_header_field": self.header_name,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_end,
            "on_part_data": self.data,
            "on_end": self.end,
        }

    def begin(self) -> None:
        self._name, self._value, self._disposition = b"", b"", b""

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name = _longer(self._name, data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = _longer(self._value, data[start:end])

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def headers_end(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"filename" not in options:
            raise _malformed("a part without a file name is no image")
        if len(self.contents) == self.most:
            raise Refused(
                413, "too_many_images", f"more images than this server's limit of {self.most} a request"
            )
        self.contents.append(bytearray())

    def data(self, data: bytes, start: int, end: int) -> None:
        self.contents[-1] += data[start:end]

    def end(self) -> None:
        self.ended = True


def _longer(text: bytes, more: bytes) -> bytes:
    if len(text) + len(more) > MOST_HEADER_BYTES:
        raise _malformed("a header of a part is too long")
    return text + more


def _malformed(why: str) -> Refused:
    return Refused(400, "bad_multipart", "the multipart body is malformed" + (f": {why}" if why else ""))
