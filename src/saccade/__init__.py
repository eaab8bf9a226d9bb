"""saccade turns a folder of labelled images into an image classifier that can be trusted and shipped."""

from saccade._version import __version__

__all__ = ["__version__"]
