"""What an exported file says besides its network: how images are decoded, and when the model abstains."""

from __future__ import annotations

from typing import Any

from saccade.artefact import (
    BACKGROUND_KEY,
    GRAY_MAXIMUM_KEY,
    PRIORS_KEY,
)
from saccade.deciding import ASKING_KEY, LABEL_SETS_KEY
from saccade.export.beside import metadata_in, told
from saccade.pipeline.measuring import measuring, wanted_again
from saccade.pipeline.shares import Asked, asked_priors
from saccade.recipe import DataConfig
from saccade.run_folder import RunFolder, json_bytes


def metadata_of(run: RunFolder, asked: Asked) -> dict[str, Any]:
    """By full key, as metadata of a file that answers for the class shares that are `asked` for.

    Thresholds are chosen by the precision asked for, else by that which the run's figures were last made for.
    """
    recipe = run.read_recipe()
    by = measuring(run, recipe, target=asked.precision or wanted_again(run), asked=asked)
    return {**_decoding(recipe.data), PRIORS_KEY: asked.priors.as_json(), **by.as_metadata}


def decides_alike(run: RunFolder) -> bool:
    """Whether the run's own model.onnx abstains as its figures, which `saccade evaluate` changes, say now."""
    found, wanted = metadata_in(run.onnx), metadata_of(run, asked_priors(run, ""))
    return all(found.get(key) == wanted[key] for key in (ASKING_KEY, LABEL_SETS_KEY))


def _decoding(data: DataConfig) -> dict[str, Any]:
    decoding: dict[str, Any] = {BACKGROUND_KEY: list(data.background)}
    return decoding | ({GRAY_MAXIMUM_KEY: data.gray_maximum} if data.gray_maximum else {})


def write_class_list(run: RunFolder) -> None:
    """What runtimes that show no metadata of a model.onnx (JavaScript, C#, Java) must be told."""
    keys = ("classes", "preprocess", "thresholds", "data_fingerprint", "saccade_version")
    model = run.read_model()
    values = {"model": run.onnx.name, **{key: model[key] for key in keys}, **told(metadata_in(run.onnx))}
    run.write(run.class_list, json_bytes(values))
