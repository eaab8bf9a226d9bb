"""`environment.json`: versions, device, command, and what every "auto" of the recipe became."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from saccade._version import __version__

PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow", "onnx", "onnxruntime")


def versions() -> dict[str, str]:
    """Versions of what the result depends on; absent packages are left out."""
    found = {"saccade": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def environment(
    *,
    command: Sequence[str],
    identity: Mapping[str, str],
    runtime: Mapping[str, Any],
    resolved: Mapping[str, Any],
) -> dict[str, Any]:
    """`environment.json` at the start of training; promises and results join it at the end."""
    return {
        **identity,
        "command": list(command),
        "platform": platform.platform(),
        "versions": versions(),
        **runtime,
        "resolved": dict(resolved),
        "finished": False,
    }
