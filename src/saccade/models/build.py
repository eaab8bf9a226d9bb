"""From a name to a network that is ready to be trained, and back from what a bundle says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from saccade.errors import ModelError
from saccade.models import pretrained as libraries
from saccade.models.backbones import BACKBONES, OWN, BackboneName, accepted, find_backbone
from saccade.models.network import Classifier, feature_count, make_head, without_last_layer
from saccade.models.options import Option, checked_options
from saccade.models.weights import Header, WeightsFile, read_weights
from saccade.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

HEAD_DROPOUT = 0.2
OWN_IMAGE_SIZE = 224
RESIZE_MODES: dict[str, Literal["crop", "pad", "squash"]] = {"center": "crop", "squash": "squash", "border": "pad"}


@dataclass(frozen=True)
class BuiltModel:
    """A network, how images must be prepared for it, and what `rebuild` needs to make it again.

    `notes` say in words where weights and preprocessing come from.
    """

    module: Classifier
    preprocess: Preprocess
    architecture: dict[str, Any]
    pretrained: bool
    notes: tuple[str, ...] = ()


def build_model(
    name: str,
    classes: int,
    *,
    pretrained: bool = True,
    weights: str = "",
    head: str = "linear",
    dropout: float | Literal["auto"] = "auto",
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> BuiltModel:
    """Build a backbone by name, with published weights, weights from a file, or random ones, and a new head.

    `image_size` None means the backbone's own. Random weights are f(seed); torch's global generator is left as
    it was. Raises ModelError for an unknown name, weights that do not fit or cannot be fetched, and bad options.
    """
    if weights and not pretrained:
        raise ModelError(f"--no-pretrained and --weights {weights} exclude each other; leave one of them out")
    found = find_backbone(name)
    with _seeded(seed):
        if found.library == OWN:
            return _build_own(found, classes, weights, head, dropout, image_size, options or {})
        return _build_published(found, classes, pretrained, weights, head, dropout, image_size, options or {})


def rebuild(architecture: Mapping[str, Any]) -> Classifier:
    """The network that `BuiltModel.architecture` describes, with random weights; fetches nothing.

    Raises ModelError when the description is not one of ours.
    """
    try:
        found = find_backbone(f"{architecture['library']}/{architecture['backbone']}")
        classes, image_size = int(architecture["classes"]), int(architecture["image_size"])
        head, dropout = str(architecture["head"]), float(architecture["dropout"])
        options = dict(architecture["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the architecture in the bundle does not hold ({error}); train the model again") from None
    with _seeded(0):
        if found.library == OWN:
            return _own_classifier(found, classes, "", head, dropout, image_size, options)
        options = checked_options(options, where="options of the stored architecture")
        stripped = libraries.create(found.library, found.name, options)
        return _finished(stripped.backbone, found, classes, head, dropout, image_size)


def _build_own(
    found: BackboneName,
    classes: int,
    weights: str,
    head: str,
    dropout: float | Literal["auto"],
    image_size: int | None,
    options: Mapping[str, Any],
) -> BuiltModel:
    size = image_size or OWN_IMAGE_SIZE
    share = 0.0 if dropout == "auto" else dropout
    module = _own_classifier(found, classes, weights, head, share, size, options)
    note = f"{found.name} starts from the file {weights}" if weights else f"{found.name} starts from random weights"
    return BuiltModel(
        module=module,
        preprocess=Preprocess(size=size, resize="squash", crop_fraction=1.0),
        architecture=_architecture(found, classes, head, share, size, options),
        pretrained=bool(weights),
        notes=(note,),
    )


def _own_classifier(
    found: BackboneName,
    classes: int,
    weights: str,
    head: str,
    dropout: float,
    image_size: int,
    options: Mapping[str, Any],
) -> Classifier:
    build = BACKBONES[found.name]
    try:
        network = build(classes, weights=weights, **accepted(build, image_size=image_size, head=head), **options)
    except TypeError as error:
        raise ModelError(f"{found.name} cannot be built with model.options {dict(options)}: {error}") from None
    backbone, _ = without_last_layer(network)
    return _with_head(backbone, found, classes, head, dropout, image_size)


def _build_published(
    found: BackboneName,
    classes: int,
    pretrained: bool,
    weights: str,
    head: str,
    dropout: float | Literal["auto"],
    image_size: int | None,
    options: Mapping[str, Any],
) -> BuiltModel:
    given = checked_options(options, where="model.options")
    file = read_weights(weights) if weights else None
    header = file.header if file else Header()
    _check_architecture(found, header, weights)
    merged: dict[str, Option] = {**header.options, **given}
    stripped = libraries.create(found.library, found.name, merged)
    if pretrained:
        _load(stripped, found, file, weights)
    preprocess, notes = choose_preprocess(found, header, weights, image_size)
    share = HEAD_DROPOUT if dropout == "auto" else dropout
    module = _finished(stripped.backbone, found, classes, head, share, preprocess.size)
    return BuiltModel(
        module=module,
        preprocess=preprocess,
        architecture=_architecture(found, classes, head, share, preprocess.size, merged),
        pretrained=pretrained,
        notes=(_origin(found, pretrained, weights), *_option_notes(header, given), *notes),
    )


def _check_architecture(found: BackboneName, header: Header, weights: str) -> None:
    if not header.architecture:
        return
    same_name = header.architecture.partition(".")[0] == found.name.partition(".")[0]
    if not same_name or header.library not in ("", found.library):
        says = "/".join(part for part in (header.library, header.architecture) if part)
        raise ModelError(f"{weights} holds weights of {says}, but the backbone is {found}; use --backbone {says}")


def _load(stripped: libraries.Stripped, found: BackboneName, file: WeightsFile | None, weights: str) -> None:
    if file:
        libraries.load(stripped, file.tensors, where=weights)
    else:
        tensors = libraries.hub_weights(found.library, found.name)
        libraries.load(stripped, tensors, where=f"the published file of {found}")


def choose_preprocess(
    found: BackboneName, header: Header, weights: str, image_size: int | None
) -> tuple[Preprocess, tuple[str, ...]]:
    """What belongs to these weights: the file's header, then the architecture's own; and which is which, in words."""
    own = libraries.defaults(found.library, found.name)
    said = {
        "mean": header.mean,
        "std": header.std,
        "crop_fraction": header.crop_fraction,
        "interpolation": header.interpolation,
        "image_size": header.image_size,
        "crop_mode": header.crop_mode,
    }
    chosen = replace(own, **{name: value for name, value in said.items() if value})
    absent = [name for name, value in said.items() if not value]
    notes = [_source_note(found, chosen, absent, weights)] if weights else []
    interpolation, more = _interpolation(chosen.interpolation)
    fraction, still_more = _crop_fraction(chosen.crop_fraction)
    preprocess = Preprocess(
        size=image_size or chosen.image_size,
        resize=RESIZE_MODES.get(chosen.crop_mode, "crop"),
        interpolation=interpolation,
        crop_fraction=fraction,
        mean=chosen.mean,
        std=chosen.std,
    )
    return preprocess, (*notes, *more, *still_more)


def _source_note(found: BackboneName, chosen: libraries.Defaults, absent: list[str], weights: str) -> str:
    if not absent:
        return f"preprocessing is that of the header of {weights}"
    imagenet = (chosen.mean, chosen.std) == (IMAGENET_MEAN, IMAGENET_STD)
    values = ", ".join(f"{name} {getattr(chosen, name)}" for name in absent)
    also = " (mean and std are ImageNet's)" if imagenet and "mean" in absent else ""
    return f"the header of {weights} does not say {', '.join(absent)}: {found}'s own are used, {values}{also}"


def _interpolation(name: str) -> tuple[Literal["bilinear", "bicubic"], tuple[str, ...]]:
    if name == "bilinear":
        return "bilinear", ()
    note = () if name == "bicubic" else (f"interpolation {name!r} is not offered here: bicubic is used",)
    return "bicubic", note


def _crop_fraction(value: float) -> tuple[float, tuple[str, ...]]:
    if 0.1 <= value <= 1:
        return value, ()
    return min(max(value, 0.1), 1.0), (f"crop_pct {value:g} is not offered here: the nearest of 0.1 to 1 is used",)


def _origin(found: BackboneName, pretrained: bool, weights: str) -> str:
    if weights:
        return f"{found} starts from the weights in {weights}"
    return f"{found} starts from its published weights" if pretrained else f"{found} starts from random weights"


def _option_notes(header: Header, given: Mapping[str, Option]) -> tuple[str, ...]:
    said = [f"{name} = {value!r}" for name, value in header.options.items() if name not in given]
    over = [f"{name} = {given[name]!r} instead of {header.options[name]!r}" for name in given if name in header.options]
    notes = [f"the file's header builds it with {', '.join(said)}"] if said else []
    notes += [f"model.options overrules the file's header: {', '.join(over)}"] if over else []
    return tuple(notes)


def _finished(
    backbone: nn.Module, found: BackboneName, classes: int, head: str, dropout: float, image_size: int
) -> Classifier:
    libraries.set_image_size(backbone, image_size, name=str(found))
    return _with_head(backbone, found, classes, head, dropout, image_size)


def _with_head(
    backbone: nn.Module, found: BackboneName, classes: int, head: str, dropout: float, image_size: int
) -> Classifier:
    features = feature_count(backbone, image_size, name=str(found))
    return Classifier(backbone, make_head(head, features, classes, dropout=dropout))


def _architecture(
    found: BackboneName,
    classes: int,
    head: str,
    dropout: float,
    image_size: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "library": found.library,
        "backbone": found.name,
        "options": dict(options),
        "head": head,
        "classes": classes,
        "dropout": dropout,
        "image_size": image_size,
    }


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
