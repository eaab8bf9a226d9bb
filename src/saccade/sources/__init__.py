"""From a location to a Dataset: what is listed, labelled and assigned to parts, without decoding."""

from saccade.sources.naming import natural_key
from saccade.sources.registry import SOURCES, Source, is_list, load_source
from saccade.sources.tables import USUAL_COLUMNS, Columns
from saccade.terminal import printable

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
