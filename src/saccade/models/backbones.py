"""The registry: our own backbones by builder, timm's and torchvision's by name, and those from outside.

To add one here, write `build(classes, *, weights, **options) -> nn.Module` and give it a line in BACKBONES.
From outside use `saccade.extensions.register_backbone`, or name the function: `package.module:build`.
`saccade.testing.check_backbone` checks them all.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from saccade import extensions
from saccade.errors import ModelError
from saccade.models import pretrained
from saccade.models.fast_cnn import fast_cnn
from saccade.models.small_cnn import small_cnn
from saccade.recipe import AUTO_BACKBONE

Builder = Callable[..., nn.Module]

# name -> build(classes, *, weights, **options) -> network whose last dense layer gives the logits.
# Where the builder has parameters `image_size` and `head` they are filled in.
# One without weights of its own stands in `recipe.ALWAYS_FROM_SCRATCH` as well.
BACKBONES: dict[str, Builder] = {"small_cnn": small_cnn, "fast_cnn": fast_cnn}

OWN, EXTENSION = "saccade", "extension"  # libraries whose networks come from a builder
USUAL_IMAGE_SIZE = 224


@dataclass(frozen=True)
class BackboneRow:
    """One line of `saccade backbones`.

    `parameters` counts those of the whole published network; it and `image_size` are 0 where not known.
    """

    name: str
    library: str
    image_size: int
    parameters: int = 0
    pretrained: bool = False


@dataclass(frozen=True)
class BackboneName:
    """A backbone that exists: its library (saccade, timm, torchvision or extension) and its name there."""

    library: str
    name: str

    def __str__(self) -> str:
        return self.name if self.library == OWN else f"{self.library}/{self.name}"

    @property
    def builder(self) -> Builder | None:
        """What builds it, where that is one function; None for timm's and torchvision's."""
        if self.library == EXTENSION:
            found: Builder | None = extensions.find("backbones", self.name)
            return found
        return BACKBONES[self.name] if self.library == OWN else None


def find_backbone(text: str) -> BackboneName:
    """Whose backbone a name means: ours, timm's, torchvision's, an extension's; a prefix (`timm/`) decides.

    Raises ModelError with the closest names.
    """
    if text == AUTO_BACKBONE:
        raise ModelError("backbone 'auto' can only be used by `saccade train`", hint="name a backbone")
    if extensions.is_function_name(text):
        name = text.removeprefix(f"{EXTENSION}/")
        extensions.named_function(name)  # raises where it cannot be had
        return BackboneName(EXTENSION, name)
    library, _, name = text.rpartition("/")
    everywhere = [OWN, *pretrained.LIBRARIES, EXTENSION]
    if library and library not in everywhere:
        raise ModelError(
            f"unknown library {library!r} in backbone {text!r}", hint=f"choose from: {', '.join(everywhere)}"
        )
    candidates = [library] if library else everywhere
    for candidate in candidates:
        if _has(candidate, name):
            return BackboneName(candidate, name)
    base = name.partition(".")[0] if "." in name else ""
    known = [row for candidate in candidates for row in _names(candidate, base)]
    close = difflib.get_close_matches(name, sorted(set(known)), n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "`saccade backbones '*'` lists all"
    raise ModelError(f"unknown backbone: {text}", hint=hint)


def backbones(pattern: str = "*") -> list[BackboneRow]:
    """Every backbone whose name matches (`*` and `?` are wild, a plain word stands anywhere); builds none."""
    wild = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    own = [BackboneRow(name, OWN, usual_image_size(build)) for name, build in BACKBONES.items()]
    others = [BackboneRow(**row) for row in pretrained.listing()]
    from_outside = [BackboneRow(name, EXTENSION, 0) for name in extensions.names("backbones")]
    return [row for row in [*own, *from_outside, *others] if fnmatch.fnmatchcase(row.name, wild)]


def usual_image_size(build: Builder) -> int:
    """Side in pixels of the images of a builder's network where nothing says otherwise: its default."""
    import inspect

    parameter = inspect.signature(build).parameters.get("image_size")
    return parameter.default if parameter and type(parameter.default) is int else USUAL_IMAGE_SIZE


def _has(library: str, name: str) -> bool:
    return pretrained.has(library, name) if library in pretrained.LIBRARIES else name in _names(library, "")


def _names(library: str, base: str) -> list[str]:
    if library == EXTENSION:
        return list(extensions.names("backbones"))
    return list(BACKBONES) if library == OWN else pretrained.names(library, tags_of=base)
