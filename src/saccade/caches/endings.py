"""How long export and report took in the last run on this machine: a time limit leaves room for them."""

from __future__ import annotations

import contextlib
import json
import math

from saccade.caches.store import cache_folder
from saccade.errors import SaccadeError
from saccade.files import parse_json, read_text
from saccade.run_folder import json_bytes, write_bytes

FILE = "endings.json"
LEAST_SECONDS, MOST_SECONDS = 3.0, 60.0


def kind_of_run(device: str, backbone: str, size: int) -> str:
    """What the time of export and report depends on: the device, the network, the side of its images."""
    return f"{device} {backbone} {size}"


def rest_seconds(kind: str, usual: float) -> float:
    """What export and report took last time in this kind of run; `usual` where that is not known."""
    seconds = _stored().get(kind)
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return usual
    return min(MOST_SECONDS, max(LEAST_SECONDS, float(seconds)))


def keep_rest_seconds(kind: str, seconds: float) -> None:
    """Write it down; where nothing can be written it is measured another time."""
    with contextlib.suppress(OSError, SaccadeError):
        path = cache_folder() / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json_bytes({**_stored(), kind: round(seconds, 2)}))


def _stored() -> dict[str, object]:
    """By kind of run; empty where there is no file, or another thing in its place."""
    try:
        found = parse_json(read_text(cache_folder() / FILE))
    except (OSError, ValueError, SaccadeError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
