"""From a location to a Dataset: what is listed, labelled and assigned to parts, without decoding."""

from saccade.sources.naming import natural_key
from saccade.sources.registry import SOURCES, Source, load_source
from saccade.terminal import printable

__all__ = ["SOURCES", "Source", "load_source", "natural_key", "printable"]
