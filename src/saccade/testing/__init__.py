"""Checks for parts from outside: run these in the tests of your own package; each raises AssertionError.

| part                       | check                |
|----------------------------|----------------------|
| augmentation               | `check_augmentation` |
| backbone                   | `check_backbone`     |
| callback                   | `check_callback`     |
| export format              | `check_format`       |
| metric                     | `check_metric`       |
| mixing of a batch          | `check_mixing`       |
| data source                | `check_source`       |

`saccade.extensions` says how such parts are registered. Each check is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.testing.augmentations import check_augmentation, check_mixing
    from saccade.testing.backbones import check_backbone
    from saccade.testing.callbacks import check_callback
    from saccade.testing.formats import check_format
    from saccade.testing.metrics import check_metric
    from saccade.testing.sources import check_source

__all__ = [
    "check_augmentation",
    "check_backbone",
    "check_callback",
    "check_format",
    "check_metric",
    "check_mixing",
    "check_source",
]

_HOMES = {
    "check_augmentation": "augmentations",
    "check_backbone": "backbones",
    "check_callback": "callbacks",
    "check_format": "formats",
    "check_metric": "metrics",
    "check_mixing": "augmentations",
    "check_source": "sources",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"saccade.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'saccade.testing' has no attribute {name!r}")
