"""What an exported file says besides its network: how images are decoded, and when the model abstains."""

from __future__ import annotations

from typing import Any

from saccade.artefact import (
    BACKGROUND_KEY,
    GRAY_MAXIMUM_KEY,
    PRIORS_KEY,
    UNFAMILIAR_KEY,
    read_model_bytes,
)
from saccade.deciding import ASKING_KEY, LABEL_SETS_KEY
from saccade.files import parse_json
from saccade.onnx_file import inspect_model
from saccade.pipeline.measuring import measuring, wanted_again
from saccade.pipeline.shares import Asked
from saccade.recipe import DataConfig
from saccade.run_folder import RunFolder, json_bytes


def metadata_of(run: RunFolder, asked: Asked) -> dict[str, Any]:
    """By full key, as metadata of a file that answers for the class shares that are `asked` for.

    Thresholds are chosen by the precision that the run's figures were last made for.
    """
    recipe = run.read_recipe()
    by = measuring(run, recipe, target=wanted_again(run), asked=asked)
    return {**_decoding(recipe.data), PRIORS_KEY: asked.priors.as_json(), **by.as_metadata}


def _decoding(data: DataConfig) -> dict[str, Any]:
    decoding: dict[str, Any] = {BACKGROUND_KEY: list(data.background)}
    return decoding | ({GRAY_MAXIMUM_KEY: data.gray_maximum} if data.gray_maximum else {})


def write_class_list(run: RunFolder) -> None:
    """What runtimes that show no metadata of a model.onnx (JavaScript, C#, Java) must be told."""
    model, metadata = run.read_model(), inspect_model(read_model_bytes(run.onnx), name=str(run.onnx))
    keys = ("classes", "preprocess", "thresholds", "data_fingerprint", "saccade_version")
    data = run.read_recipe().data
    decoding = {"background": list(data.background), "gray_maximum": data.gray_maximum}
    deciding = {
        key.removeprefix("saccade."): parse_json(metadata.get(key, "null"))
        for key in (ASKING_KEY, LABEL_SETS_KEY, UNFAMILIAR_KEY)
    }
    values = {"model": run.onnx.name, **{key: model[key] for key in keys}, **decoding, **deciding}
    run.write(run.class_list, json_bytes(values))
