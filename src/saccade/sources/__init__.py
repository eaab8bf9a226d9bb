"""From a location to a Dataset: what is listed, labelled and assigned to parts, without decoding.

What reads data sets is loaded when it is first asked for: predicting one photo needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saccade.sources.naming import natural_key
from saccade.terminal import printable

if TYPE_CHECKING:
    from saccade.sources.registry import SOURCES, Source, is_list, load_source
    from saccade.sources.tables import USUAL_COLUMNS, Columns

__all__ = [
    "SOURCES",
    "USUAL_COLUMNS",
    "Columns",
    "Source",
    "is_list",
    "load_source",
    "natural_key",
    "printable",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'saccade.sources' has no attribute {name!r}")
    from saccade.sources import registry

    return getattr(registry, name)
