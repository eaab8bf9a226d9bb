"""Answers of a prediction that is not finished, kept in a file beside its output until the output is whole.

The file is a sequence of blocks. A block is a mark, the length and CRC-32 of its content, and the content: a
JSON object, then float64 probabilities and unfamiliarity of each image. The first block says what is being
predicted. Blocks are appended and synced; a block counts only when it is there whole. So a process may be
killed, and the machine may lose its power, at any moment: what is behind the last whole block is cut off, and
prediction goes on from there.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from saccade.deciding import NO_LIMITS, Deciding
from saccade.errors import RunError
from saccade.files import lock_file
from saccade.predict.predictor import Answer

ENDING = ".unfinished"
FLUSH_SECONDS, FLUSH_BYTES = 1.0, 4_000_000
_MARK = b"\x93SACBLK\n"
_HEAD = struct.Struct("<8sQI")  # mark, length of the content, its CRC-32
_LENGTH = struct.Struct("<I")  # of the JSON object
_MOST_BLOCK_BYTES = 1 << 30


class Journal:
    """The answers so far, in order; made by `open_journal`.

    rows: how many inputs have an answer or a reason why not.
    """

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        classes: tuple[str, ...],
        thresholds: tuple[float, ...] | None = None,
        deciding: Deciding = NO_LIMITS,
    ) -> None:
        self.path, self.classes, self.thresholds, self.deciding = path, classes, thresholds, deciding
        self.rows = 0
        self._file = file
        self._waiting: list[Answer] = []
        self._flushed = time.monotonic()

    def add(self, answers: Sequence[Answer]) -> None:
        """Take answers that belong together; they are kept together or not at all."""
        self._waiting += answers
        self.rows += len(answers)
        full = 8 * len(self.classes) * len(self._waiting) >= FLUSH_BYTES
        if full or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put what is waiting onto the disk."""
        if self._waiting:
            _append(self._file, *_content(self._waiting))
            self._waiting = []
        self._flushed = time.monotonic()

    def __iter__(self) -> Iterator[Answer]:
        """Every answer that was flushed, from the start."""
        with open(self.path, "rb") as file:
            blocks = _blocks(file)
            next(blocks)
            for values, data in blocks:
                for answer in _answers(values, data, self.classes):
                    yield replace(answer, thresholds=self.thresholds, deciding=self.deciding)

    def close(self, *, finished: bool) -> None:
        """Give the file free for others; remove it where its answers are kept elsewhere now."""
        self._file.close()
        if finished:
            self.path.unlink()


def open_journal(
    out: Path,
    identity: Mapping[str, Any],
    classes: tuple[str, ...],
    thresholds: tuple[float, ...] | None = None,
    deciding: Deciding = NO_LIMITS,
) -> Journal:
    """The journal beside `out`, begun or continued; `identity` is what its answers depend on.

    thresholds: of a model that names several labels (`Answer.thresholds`). deciding: `Answer.deciding`.
    Raises RunError where another process writes it, or where it was begun for something else.
    """
    path = out.with_name(out.name + ENDING)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror})",
            hint="check the folder and its permissions, or give --out another name",
        ) from None
    try:
        _lock(file, path)
        journal = Journal(path, file, classes, thresholds, deciding)
        journal.rows = _recovered(file, path, identity)
    except BaseException:
        file.close()
        raise
    return journal


def _lock(file: BinaryIO, path: Path) -> None:
    there = path.stat() if lock_file(file.fileno()) and path.exists() else None
    if there is None or not os.path.samestat(there, os.fstat(file.fileno())):
        raise RunError(
            f"{path} is being written by another saccade",
            hint="wait until it has ended, or give --out another name",
        )


def _recovered(file: BinaryIO, path: Path, identity: Mapping[str, Any]) -> int:
    """Check what the journal was begun for, cut off what is no whole block; the number of rows."""
    rows, end = 0, 0
    for number, (values, _) in enumerate(_blocks(file)):
        if number == 0:
            _refuse_other(values, identity, path)
        rows += len(values.get("paths", ()))
        end = file.tell()
    file.seek(0)
    if end == 0 and not _MARK.startswith(file.read(len(_MARK)).rstrip(b"\0")):
        raise RunError(f"{path} is no journal of saccade", hint="move it away, or give --out another name")
    file.truncate(end)
    file.seek(end)
    if end == 0:
        _append(file, {**identity})
    return rows


def _refuse_other(values: Mapping[str, Any], identity: Mapping[str, Any], path: Path) -> None:
    other = [name for name in identity if values.get(name) != identity[name]]
    if other or values.keys() != identity.keys():
        raise RunError(
            f"{path} holds the answers of a prediction with {' and '.join(other) or 'another saccade'}",
            hint=f"to begin anew, remove it: rm {path}; or give --out another name",
        )


def _blocks(file: BinaryIO) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every whole block from the start: its JSON object and the bytes behind it."""
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        mark, length, checksum = _HEAD.unpack(head)
        if mark != _MARK or not _LENGTH.size <= length <= min(_MOST_BLOCK_BYTES, size - file.tell()):
            return
        content = file.read(length)
        if zlib.crc32(content) != checksum:
            return
        (text,) = _LENGTH.unpack_from(content)
        yield json.loads(content[_LENGTH.size : _LENGTH.size + text]), content[_LENGTH.size + text :]


def _append(file: BinaryIO, values: Mapping[str, Any], data: bytes = b"") -> None:
    text = json.dumps(values).encode("ascii")
    content = _LENGTH.pack(len(text)) + text + data
    file.write(_HEAD.pack(_MARK, len(content), zlib.crc32(content)) + content)
    file.flush()
    os.fsync(file.fileno())


def _content(answers: Sequence[Answer]) -> tuple[dict[str, Any], bytes]:
    good = [np.append(answer.probabilities, answer.unfamiliarity) for answer in answers if not answer.error]
    errors = {str(i): answer.error for i, answer in enumerate(answers) if answer.error}
    data = np.array(good, dtype="<f8").tobytes()  # those for other priors are no float32
    return {"paths": [answer.path for answer in answers], "errors": errors}, data


def _answers(values: Mapping[str, Any], data: bytes, classes: tuple[str, ...]) -> Iterator[Answer]:
    rows = iter(np.frombuffer(data, dtype="<f8").reshape(-1, len(classes) + 1))
    nothing = np.zeros(len(classes))
    for i, path in enumerate(values["paths"]):
        if error := values["errors"].get(str(i), ""):
            yield Answer(path, classes, nothing, error)
        else:
            row = next(rows)
            yield Answer(path, classes, row[:-1], unfamiliarity=float(row[-1]))
