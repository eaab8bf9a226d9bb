"""Candidates on disk, until it is known which of them the budget allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from saccade.near_duplicates.candidates import Candidates
from saccade.near_duplicates.stored import nameless_file

PARTITIONS, PARTITION_IMAGES = 64, 65_536  # so many parts at most, of so many pictures at least


class Spill:
    """Candidates on disk, in parts by the first picture of each pair."""

    RECORD = np.dtype([("like", np.int32), ("viewed", np.int32), ("view", np.int16), ("cosine", np.float32)])

    def __init__(self, pictures: int) -> None:
        self._size = max(PARTITION_IMAGES, -(-pictures // PARTITIONS))
        self.parts = -(-pictures // self._size)
        self._files = [nameless_file() for _ in range(self.parts)]

    def add(self, some: Candidates) -> None:
        part = np.minimum(some.like, some.viewed) // self._size
        order = np.argsort(part, kind="stable")
        for number, rows in enumerate(
            np.split(order, np.searchsorted(part[order], np.arange(1, self.parts)))
        ):
            self._write(number, some[rows])

    def rewrite(self, part: int, some: Candidates) -> None:
        self._files[part].seek(0)
        self._files[part].truncate()
        self._write(part, some)

    def read(self, part: int) -> Candidates:
        self._files[part].seek(0)
        records = np.frombuffer(self._files[part].read(), self.RECORD)
        return Candidates(*(records[name].copy() for name in self.RECORD.names or ()))

    def _write(self, part: int, some: Candidates) -> None:
        records = np.empty(len(some), self.RECORD)
        for name in self.RECORD.names or ():
            records[name] = getattr(some, name)
        self._files[part].write(records.tobytes())

    def __del__(self) -> None:
        for file in self._files:
            file.close()


@dataclass(frozen=True)
class Selection:
    """Candidates on disk from the cosine `least` on, at most `pairs`: iterates over the parts.

    No two parts share a pair, and there are as many of every kind.
    """

    spill: Spill
    least: float
    pairs: int

    def __iter__(self) -> Iterator[Candidates]:
        for part in range(self.spill.parts):
            some = self.spill.read(part)
            yield some[some.cosine >= self.least]
