"""What `--weights` may name: a safetensors file, a folder with one, or published weights (`timm/NAME.TAG`).

A folder is one that timm or the Hugging Face hub writes (`config.json` and `model.safetensors`), or one
with a single safetensors file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.errors import ModelError
from saccade.files import parse_json, read_text
from saccade.models.weights import Header, WeightsFile, check_header, parse_metadata, read_weights

CONFIG, TENSORS, SUFFIX = "config.json", "model.safetensors", ".safetensors"
PUBLISHED = "timm/"  # what a name of published weights begins with
# config.json of timm -> metadata of a safetensors file
CONFIG_FIELDS = ("mean", "std", "crop_pct", "crop_mode", "interpolation", "input_size", "license")


@dataclass(frozen=True, slots=True)
class GivenWeights:
    """A weights file, and what stands beside it: the header made of a `config.json`, or None."""

    file: Path
    config: Header | None = None

    @property
    def header(self) -> Header:
        """What the file says of itself, and its config where the file says nothing. Reads no tensor."""
        return self._completed(parse_metadata(check_header(self.file), where=str(self.file)))

    def read(self) -> WeightsFile:
        """Tensors, header and SHA-256; raises ModelError saying what is wrong with the file."""
        found = read_weights(self.file)
        return dataclasses.replace(found, header=self._completed(found.header))

    def _completed(self, own: Header) -> Header:
        if self.config is None:
            return own
        said = {f.name: value for f in dataclasses.fields(own) if (value := getattr(own, f.name))}
        return dataclasses.replace(self.config, **said)


def published_name(weights: str) -> str:
    """`timm/NAME.TAG` where `weights` is such a name and not a path that exists; else "".

    >>> published_name("timm/resnet18.a1_in1k"), published_name("resnet18.safetensors")
    ('timm/resnet18.a1_in1k', '')
    """
    is_name = weights.startswith(PUBLISHED) and not weights.endswith(SUFFIX) and not Path(weights).exists()
    return weights if is_name else ""


def find_weights(weights: str) -> GivenWeights:
    """The file that a path means; raises ModelError for a folder without one, or with several."""
    place = Path(weights)
    if not place.is_dir():
        return GivenWeights(place)
    if (place / CONFIG).is_file():
        return GivenWeights(place / TENSORS, read_config(place / CONFIG))
    found = sorted(place.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        raise ModelError(
            f"--weights {weights} is a folder with {len(found)} safetensors files and no {CONFIG}",
            hint="give one .safetensors file, or choose among those in it with --backbone auto",
        )
    return GivenWeights(found[0])


def read_config(path: Path) -> Header:
    """The header that timm's `config.json` amounts to; raises ModelError for what is none."""
    try:
        values = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="download the folder again") from None
    if not isinstance(values, dict) or not isinstance(values.get("architecture"), str):
        kind = values.get("model_type", "") if isinstance(values, dict) else ""
        raise ModelError(
            f"{path} names no architecture of timm{f': model type {kind}' if kind else ''}",
            hint="give a folder that timm wrote, or the .safetensors file alone with --backbone NAME",
        )
    return parse_metadata(_as_metadata(values), where=str(path))


def _as_metadata(values: Mapping[str, Any]) -> dict[str, str]:
    nested = values.get("pretrained_cfg")
    fields = {**values, **(nested if isinstance(nested, dict) else {})}
    metadata = {key: _as_text(fields[key]) for key in CONFIG_FIELDS if fields.get(key) is not None}
    options = values.get("model_args")
    if isinstance(options, dict):
        kept = {key: value for key, value in options.items() if key != "img_size"}  # input_size says it
        metadata["kwargs"] = json.dumps(kept)
    return {"arch": f"timm/{values['architecture']}", **metadata}


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
