"""The registry: backbones of our own by builder, timm's and torchvision's by name.

To add one, write `build(classes, *, weights, **options) -> nn.Module` and give it a line in BACKBONES;
`check_backbone` of `saccade.models.contract` says whether it keeps to the contract.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from saccade.errors import ModelError
from saccade.models import pretrained
from saccade.models.fast_cnn import fast_cnn
from saccade.models.small_cnn import small_cnn
from saccade.recipe import AUTO_BACKBONE

Builder = Callable[..., nn.Module]

# name -> build(classes, *, weights, **options) -> network whose last dense layer gives the logits.
# Where the builder has parameters `image_size` and `head` they are filled in.
# One without weights of its own stands in `config.ALWAYS_FROM_SCRATCH` as well.
BACKBONES: dict[str, Builder] = {"small_cnn": small_cnn, "fast_cnn": fast_cnn}

OWN = "saccade"
USUAL_IMAGE_SIZE = 224


@dataclass(frozen=True)
class BackboneRow:
    """One line of `saccade backbones`; `parameters` of the whole published network, 0 where not known."""

    name: str
    library: str
    image_size: int
    parameters: int = 0
    pretrained: bool = False


@dataclass(frozen=True)
class BackboneName:
    """A backbone that exists: its library ("saccade", "timm" or "torchvision") and its name there."""

    library: str
    name: str

    def __str__(self) -> str:
        return self.name if self.library == OWN else f"{self.library}/{self.name}"


def find_backbone(text: str) -> BackboneName:
    """Whose backbone a name means: ours, then timm's, then torchvision's; a prefix (`timm/`) decides.

    Raises ModelError with the closest names.
    """
    if text == AUTO_BACKBONE:
        raise ModelError("only `saccade train` chooses a backbone for 'auto'; name one here")
    library, _, name = text.rpartition("/")
    everywhere = [OWN, *pretrained.LIBRARIES]
    if library and library not in everywhere:
        raise ModelError(f"unknown library {library!r} in backbone {text!r}; known: {', '.join(everywhere)}")
    candidates = [library] if library else everywhere
    for candidate in candidates:
        if _has(candidate, name):
            return BackboneName(candidate, name)
    base = name.partition(".")[0] if "." in name else ""
    known = [row for candidate in candidates for row in _names(candidate, base)]
    close = difflib.get_close_matches(name, sorted(set(known)), n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "`saccade backbones` lists all"
    raise ModelError(f"unknown backbone {text!r}; {hint}")


def backbones(pattern: str = "*") -> list[BackboneRow]:
    """Every backbone whose name matches (`*` and `?` are wild, a plain word stands anywhere); builds none."""
    wild = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    own = [BackboneRow(name, OWN, own_image_size(name)) for name in BACKBONES]
    others = [BackboneRow(**row) for row in pretrained.listing()]
    return [row for row in [*own, *others] if fnmatch.fnmatchcase(row.name, wild)]


def own_image_size(name: str) -> int:
    """Side in pixels that one of our own networks has where nothing says otherwise: its builder's default."""
    import inspect

    parameter = inspect.signature(BACKBONES[name]).parameters.get("image_size")
    return parameter.default if parameter and type(parameter.default) is int else USUAL_IMAGE_SIZE


def _has(library: str, name: str) -> bool:
    return name in BACKBONES if library == OWN else pretrained.has(library, name)


def _names(library: str, base: str) -> list[str]:
    return list(BACKBONES) if library == OWN else pretrained.names(library, tags_of=base)


def accepted(build: Builder, **wanted: Any) -> dict[str, Any]:
    """Those of `wanted` that the builder has a parameter for."""
    import inspect

    parameters = inspect.signature(build).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return wanted
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in wanted.items() if name in names}
