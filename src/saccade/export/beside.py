"""What stands beside a model file for programs that read no metadata of it: classes and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade._version import __version__
from saccade.errors import ModelError
from saccade.files import parse_json, read_text
from saccade.run_folder import json_bytes, write_bytes

if TYPE_CHECKING:
    from saccade.bundle import Bundle

NAME = "classes.json"


def write_beside(bundle: Bundle, folder: Path, **more: Any) -> None:
    """Write `classes.json`, as a run has it beside its model.onnx; `more` is what this format adds."""
    values = {
        "classes": list(bundle.classes),
        "preprocess": bundle.preprocess.as_json(),
        "thresholds": dict(bundle.thresholds),
        "data_fingerprint": bundle.data_fingerprint,
        "saccade_version": __version__,
    }
    write_bytes(folder / NAME, json_bytes({**more, **values}))


def read_beside(folder: Path) -> Mapping[str, Any]:
    """What `write_beside` wrote; raises ModelError where there is none."""
    try:
        values: Mapping[str, Any] = parse_json(read_text(folder / NAME))
        return {**values, "classes": tuple(values["classes"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{folder / NAME} cannot be read ({error})", hint="write the folder again with `saccade export`"
        ) from None
