"""Near-duplicates: the same photo under another size, crop, colour or format. How: docs/near-duplicates.md.

descriptions = describe_many(images)
pairs = find_pairs(descriptions)
labels, notes, broken = cluster(len(descriptions), pairs)
"""

from __future__ import annotations

from saccade.near_duplicates.cross_check import CrossCheck, CrossChecker, cross_check
from saccade.near_duplicates.descriptors import (
    Description,
    Descriptions,
    describe,
    describe_many,
    empty_descriptions,
    stack,
)
from saccade.near_duplicates.pairs import (
    Clusters,
    PairIndices,
    PairSearch,
    Planted,
    cluster,
    find_pairs,
    search_pairs,
)
from saccade.near_duplicates.verify import CERTAIN_SCORE, LIKELY_SCORE, LOOK_SCORE

__all__ = [
    "CERTAIN_SCORE",
    "LIKELY_SCORE",
    "LOOK_SCORE",
    "Clusters",
    "CrossCheck",
    "CrossChecker",
    "Description",
    "Descriptions",
    "PairIndices",
    "PairSearch",
    "Planted",
    "cluster",
    "cross_check",
    "describe",
    "describe_many",
    "empty_descriptions",
    "find_pairs",
    "search_pairs",
    "stack",
]
