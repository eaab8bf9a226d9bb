"""Remembers the pairs of earlier searches by the pictures' hashes, so that only new images are searched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade import near_duplicates
from saccade.caches.scans import ScanCache, code_version
from saccade.near_duplicates import PairIndices

_NAME_BYTES = 16  # of a SHA-256; enough that no two pictures of a data set share them
_LEAST_KNOWN = 0.5  # share of the images that must be known for a restricted search to be worth it


class Recalled(NamedTuple):
    """Known pairs, in the numbers of the images at hand, and which of these are new.

    `same_scene` is how many images showed one scene in the earlier search.
    """

    pairs: list[PairIndices]
    new: NDArray[np.bool_]
    same_scene: int = 0


class SearchMemory:
    """Searches kept in the scan's cache, each with the pictures it compared."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._version = folder, code_version(near_duplicates).encode()

    def recall(self, names: Sequence[bytes]) -> Recalled | None:
        """What the earlier search that shares most pictures found; None when too few are known."""
        wanted = [name[:_NAME_BYTES] for name in names]
        with ScanCache(self._folder) as cache:
            searches = cache.searches(self._version)
        best: tuple[list[bytes], bytes] | None = None
        most = _LEAST_KNOWN * len(wanted)
        for members, pairs in searches:
            known = [members[at : at + _NAME_BYTES] for at in range(0, len(members), _NAME_BYTES)]
            shared = len(set(known).intersection(wanted))
            if shared >= most:
                best, most = (known, pairs), shared + 1
        return None if best is None else _translated(wanted, *best)

    def keep(self, names: Sequence[bytes], pairs: Sequence[PairIndices], *, same_scene: int = 0) -> None:
        """Remember a whole search over these pictures."""
        rows = [(pair.first, pair.second, pair.band, pair.score, pair.how) for pair in pairs]
        members = b"".join(name[:_NAME_BYTES] for name in names)
        with ScanCache(self._folder) as cache:
            cache.add_search(self._version, members, json.dumps([same_scene, rows]).encode("ascii"))


def _translated(wanted: Sequence[bytes], known: Sequence[bytes], kept: bytes) -> Recalled:
    same_scene, pairs = json.loads(kept)
    place = {name: i for i, name in enumerate(wanted)}
    at = [place.get(name, -1) for name in known]
    translated = [
        PairIndices(min(at[first], at[second]), max(at[first], at[second]), *rest)
        for first, second, *rest in pairs
        if at[first] >= 0 and at[second] >= 0
    ]
    seen = set(known)
    new = np.array([name not in seen for name in wanted], bool)
    return Recalled(sorted(translated, key=lambda pair: (pair.first, pair.second)), new, same_scene)
