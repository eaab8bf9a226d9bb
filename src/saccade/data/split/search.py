"""The search over the larger atoms: largest first, then exactly where few, else by moves and swaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.data.split.objective import Floats, Ints


@dataclass(frozen=True, slots=True)
class Kinds:
    """Atoms that hold the same are of one kind: `copies` of each, holding (class, images) pairs.

    `base`, `wanted` are (classes, parts), `singles` (classes,), `must` (parts,).
    """

    holds: tuple[tuple[tuple[int, int], ...], ...]
    copies: tuple[int, ...]
    base: Ints
    wanted: Floats
    must: Floats
    singles: Ints

    def images(self, placed: Ints) -> Ints:
        """(classes, parts) images that atoms placed (kinds, parts) bring."""
        images = np.zeros_like(self.base)
        for atom, row in zip(self.holds, placed, strict=True):
            for c, n in atom:
                images[c] += n * row
        return images


def improve(kinds: Kinds) -> Ints:
    """(kinds, parts) how many atoms of each kind stand in each part."""
    return largest_first(kinds)


def largest_first(kinds: Kinds) -> Ints:
    """Each atom, the largest first, into the part where it lowers the squared deviation the most."""
    missing = (kinds.wanted - kinds.base).tolist()
    weight = (1.0 / np.maximum(kinds.wanted.sum(axis=1), 1.0)).tolist()
    parts = range(len(kinds.must))
    placed = np.zeros((len(kinds.holds), len(kinds.must)), dtype=np.int64)
    for k, (atom, copies) in enumerate(zip(kinds.holds, kinds.copies, strict=True)):
        for _ in range(copies):
            # (d - n)^2 - d^2 = n (n - 2 d); n * n is the same for every part
            gain = [sum(n * missing[c][p] * weight[c] for c, n in atom) for p in parts]
            part = gain.index(max(gain))
            placed[k, part] += 1
            for c, n in atom:
                missing[c][part] -= n
    return placed
