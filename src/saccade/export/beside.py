"""What stands beside a model file for programs that read no metadata of it: classes, limits and more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade._version import __version__
from saccade.artefact import BACKGROUND_KEY, GRAY_MAXIMUM_KEY, UNFAMILIAR_KEY, read_model_bytes
from saccade.deciding import ASKING_KEY, LABEL_SETS_KEY
from saccade.errors import ModelError
from saccade.files import parse_json, read_text
from saccade.onnx_file import inspect_model
from saccade.run_folder import json_bytes, write_bytes

if TYPE_CHECKING:
    from saccade.bundle import Bundle

NAME = "classes.json"


def write_beside(bundle: Bundle, folder: Path, metadata: Mapping[str, Any], **more: Any) -> None:
    """Write `classes.json`, as a run has it beside its model.onnx; `more` is what this format adds.

    `metadata` is that of the model by full key: how images are decoded, and when it abstains.
    """
    values = {
        **told(metadata),
        "classes": list(bundle.classes),
        "preprocess": bundle.preprocess.as_json(),
        "thresholds": dict(bundle.thresholds),
        "data_fingerprint": bundle.data_fingerprint,
        "saccade_version": __version__,
    }
    write_bytes(folder / NAME, json_bytes({**more, **values}))


def metadata_in(file: Path) -> dict[str, Any]:
    """What a `model.onnx` of saccade says, by full key; it is not run."""
    found = inspect_model(read_model_bytes(file), name=str(file))
    return {key: parse_json(text) for key, text in found.items() if key.startswith("saccade.")}


def told(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What `classes.json` repeats of a model's metadata, which are given by full key."""
    plain = {GRAY_MAXIMUM_KEY: 0, **metadata}
    keys = (BACKGROUND_KEY, GRAY_MAXIMUM_KEY, ASKING_KEY, LABEL_SETS_KEY, UNFAMILIAR_KEY)
    return {key.removeprefix("saccade."): plain.get(key) for key in keys}


def read_beside(folder: Path) -> Mapping[str, Any]:
    """What `write_beside` wrote; raises ModelError where there is none."""
    try:
        values: Mapping[str, Any] = parse_json(read_text(folder / NAME))
        return {**values, "classes": tuple(values["classes"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{folder / NAME} cannot be read ({error})", hint="write the folder again with `saccade export`"
        ) from None
