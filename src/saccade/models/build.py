"""From a name to a network that is ready to be trained, and back from what a bundle says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from saccade import extensions
from saccade.answer import Answer
from saccade.errors import ModelError
from saccade.models import pretrained as libraries
from saccade.models.backbones import EXTENSION, BackboneName, Builder, find_backbone, usual_image_size
from saccade.models.ensemble import Ensemble
from saccade.models.given import find_weights, published_name
from saccade.models.network import Classifier, feature_count, last_layer, make_head, without_last_layer
from saccade.models.options import checked_options
from saccade.models.origin import Origin
from saccade.models.preparation import choose_preprocess, made_for
from saccade.models.weights import MAX_IMAGE_SIZE, Header, WeightsFile
from saccade.preprocess import MOST_CHANNELS, RGB, PixelFormat, Preprocess

HEAD_DROPOUT = 0.2
MAX_CLASSES = 1_000_000
MEMBERS = "members"  # in the architecture of an ensemble: the answer of each
MAX_MEMBERS = 100


@dataclass(frozen=True)
class BuiltModel:
    """A network, how images must be prepared for it, and what `rebuild` needs to make it again.

    `notes` say in words where weights and preprocessing come from, `weights_sha256` what the file given as
    `weights` held ("" where none was), `origin` where pretrained weights come from and their licence.
    """

    module: Classifier
    preprocess: Preprocess
    architecture: dict[str, Any]
    pretrained: bool
    notes: tuple[str, ...] = ()
    weights_sha256: str = ""
    origin: Origin | None = None


@dataclass(frozen=True)
class _Plan:
    """A network in plain values: all that decides its shape. `as_json` is `BuiltModel.architecture`."""

    backbone: BackboneName
    options: dict[str, Any]
    head: str
    classes: int
    dropout: float
    image_size: int
    channels: int = RGB.count

    def as_json(self) -> dict[str, Any]:
        other = {} if self.channels == RGB.count else {"channels": self.channels}
        return other | {
            "library": self.backbone.library,
            "backbone": self.backbone.name,
            "options": self.options,
            "head": self.head,
            "classes": self.classes,
            "dropout": self.dropout,
            "image_size": self.image_size,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> _Plan:
        try:
            return cls(
                backbone=find_backbone(f"{values['library']}/{values['backbone']}"),
                options=dict(values["options"]),
                head=str(values["head"]),
                classes=_within("classes", values["classes"], MAX_CLASSES),
                dropout=float(values["dropout"]),
                image_size=_within("image_size", values["image_size"], MAX_IMAGE_SIZE),
                channels=_within("channels", values.get("channels", RGB.count), MOST_CHANNELS),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the stored architecture is not valid ({type(error).__name__}: {error})",
                hint="train it again",
            ) from None


def _within(name: str, value: Any, most: int) -> int:
    """A damaged or hostile description must not ask for all the memory there is."""
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most}, got {value!r}")
    return value


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
    accept_licence: str = "",
    pixels: PixelFormat = RGB,
) -> BuiltModel:
    """Build a backbone by name, with published weights, weights from a file, or random ones, and a new head.

    `weights` is a file, a folder with one, or published weights by name (`timm/NAME.TAG`). A licence other
    than Apache, MIT or BSD must be accepted by its name. `image_size` None means the backbone's own. Where
    `pixels` are not RGB the first convolution is made for them, and pretrained filters are adapted. Random
    weights are f(seed); torch's global generator is left
    as it was. Raises ModelError for unknown names, bad options, and weights that do not fit or do not come.
    """
    if weights and not pretrained:
        raise ModelError(
            f"--no-pretrained and --weights {weights} exclude each other", hint="leave one of them out"
        )
    name, weights = resolved_name(name, weights)
    backbone = find_backbone(name)
    given = dict(options or {})
    with _seeded(seed):
        if build := backbone.builder:
            named = extensions.is_function_name(backbone.name)  # such a function may bring its own weights
            if pretrained and not weights and backbone.library == EXTENSION and not named:
                raise ModelError(
                    f"{backbone} has no published weights",
                    hint="train it from scratch with --no-pretrained, or give --weights FILE",
                )
            share = 0.0 if dropout == "auto" else dropout
            side = image_size or usual_image_size(build)
            plan = _Plan(backbone, given, head, classes, share, side, pixels.count)
            return _own(plan, build, weights, pixels, pretrained=bool(weights) or (pretrained and named))
        share = HEAD_DROPOUT if dropout == "auto" else dropout
        given = checked_options(given, where="model.options")
        plan = _Plan(backbone, given, head, classes, share, image_size or 0, pixels.count)
        return _published(plan, pretrained, weights, accept_licence, pixels)


def preparation(
    name: str, *, weights: str = "", image_size: int | None = None, pixels: PixelFormat = RGB
) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing that `build_model` would give, and what must be said about it, without building.

    Raises ModelError as `build_model` does for names and for the header of the weights file.
    """
    name, weights = resolved_name(name, weights)
    backbone = find_backbone(name)
    if build := backbone.builder:
        return made_for(pixels, _own_preprocess(image_size or usual_image_size(build))), ()
    header = find_weights(weights).header if weights else Header()
    _check_architecture(backbone, header, weights)
    own = libraries.defaults(backbone.library, backbone.name)
    chosen, notes = choose_preprocess(
        own, header, name=str(backbone), weights=weights, image_size=image_size or 0
    )
    return made_for(pixels, chosen), notes


def resolved_name(name: str, weights: str) -> tuple[str, str]:
    """Backbone and weights, where `weights` may name published ones: they are the backbone's with that tag.

    >>> resolved_name("resnet18", "timm/resnet18.a1_in1k")
    ('timm/resnet18.a1_in1k', '')
    """
    published = published_name(weights)
    if not published:
        return name, weights
    backbone, meant = find_backbone(name), find_backbone(published)
    _check_architecture(backbone, Header(library=meant.library, architecture=meant.name), weights)
    return published, ""


def weights_origin(name: str, weights: str = "") -> Origin | None:
    """Where the pretrained weights of a backbone come from, without reading them; None where it has none."""
    name, weights = resolved_name(name, weights)
    backbone = find_backbone(name)
    if weights:
        return Origin(weights, "" if backbone.builder else find_weights(weights).header.licence)
    return None if backbone.builder else libraries.origin(backbone.library, backbone.name)


def rebuild(architecture: Mapping[str, Any]) -> nn.Module:
    """The network that a bundle's architecture describes, with random weights; fetches nothing.

    That is a `Classifier`, or an `Ensemble` of as many as there are `members`. Raises ModelError when the
    description does not hold.
    """
    if MEMBERS not in architecture:
        return rebuild_classifier(architecture)
    members = architecture[MEMBERS]
    if not isinstance(members, list) or not 1 <= len(members) <= MAX_MEMBERS:
        raise ModelError("the stored architecture is not valid (members)", hint="train it again")
    answers = [Answer.from_json(member) for member in members]
    return Ensemble([rebuild_classifier(architecture) for _ in answers], answers)


def rebuild_classifier(architecture: Mapping[str, Any]) -> Classifier:
    """A single network; raises ModelError when the description does not hold."""
    plan = _Plan.from_json(architecture)
    with _seeded(0):
        classifier = _rebuilt(plan)
    classifier.flip = bool(architecture.get("flip", False))
    return classifier


def _rebuilt(plan: _Plan) -> Classifier:
    if build := plan.backbone.builder:
        return _own_classifier(plan, build, weights="")[0]
    options = checked_options(plan.options, where="options of the stored architecture")
    stripped = libraries.create(plan.backbone.library, plan.backbone.name, options, channels=plan.channels)
    return _sized(stripped.backbone, plan)


def _own(plan: _Plan, build: Builder, weights: str, pixels: PixelFormat, *, pretrained: bool) -> BuiltModel:
    origin = (
        Origin(weights) if weights else Origin(f"the function {plan.backbone.name}") if pretrained else None
    )
    module, notes = _own_classifier(plan, build, weights)
    return BuiltModel(
        module=module,
        preprocess=made_for(pixels, _own_preprocess(plan.image_size)),
        architecture=plan.as_json(),
        pretrained=pretrained,
        notes=(str(origin or f"{plan.backbone} starts from random weights"), *notes),
        origin=origin,
    )


def _own_preprocess(image_size: int) -> Preprocess:
    return Preprocess(size=image_size, resize="squash", crop_fraction=1.0)


def _own_classifier(plan: _Plan, build: Builder, weights: str) -> tuple[Classifier, tuple[str, ...]]:
    """The network of a builder with a head in place of its last layer, and what must be said about that."""
    other = {} if plan.channels == RGB.count else {"channels": plan.channels}
    filled_in = extensions.accepted(
        build, weights=weights, image_size=plan.image_size, head=plan.head, **other
    )
    if other and "channels" not in filled_in:
        raise ModelError(
            f"{plan.backbone} takes images of 3 channels, not of {plan.channels}",
            hint="let its function take channels=3 and build its first convolution for so many",
        )
    if weights and "weights" not in filled_in:
        raise ModelError(f"{plan.backbone} takes no weights, got {weights}", hint="leave --weights out")
    with _blaming(plan.backbone):
        try:
            network = build(plan.classes, **{**filled_in, **plan.options})
        except TypeError as error:
            raise ModelError(
                f"{plan.backbone} cannot be built with {plan.options}: {error}", hint="change model.options"
            ) from None
        if not isinstance(network, nn.Module):
            raise ModelError(
                f"{plan.backbone} gave a {type(network).__name__}, not a torch.nn.Module",
                hint="let the function return the network",
            )
        outputs = last_layer(network)[1]
        told = f"{plan.backbone} gives {outputs} outputs for {plan.classes} classes: a new last layer is used"
        classifier = _with_head(without_last_layer(network)[0], plan)
        return classifier, (told,) if outputs != plan.classes else ()


def _blaming(backbone: BackboneName) -> AbstractContextManager[None]:
    outside = backbone.library == EXTENSION
    return extensions.blaming("backbones", backbone.name) if outside else nullcontext()


def _published(
    plan: _Plan, pretrained: bool, weights: str, accept_licence: str, pixels: PixelFormat
) -> BuiltModel:
    """A network of timm or torchvision; its plan is completed by the weights file's header."""
    backbone = plan.backbone
    preprocess, notes = preparation(str(backbone), weights=weights, image_size=plan.image_size, pixels=pixels)
    origin = weights_origin(str(backbone), weights) if pretrained else None
    if origin:
        origin.check_licence(accept_licence)
    file = find_weights(weights).read() if weights else None
    header = file.header if file else Header()
    merged = {**header.options, **plan.options}
    plan = replace(plan, options=merged, image_size=preprocess.size)
    stripped = libraries.create(backbone.library, backbone.name, merged, channels=plan.channels)
    told = _load(stripped, backbone, file, weights) if pretrained else ""
    return BuiltModel(
        module=_sized(stripped.backbone, plan),
        preprocess=preprocess,
        architecture=plan.as_json(),
        pretrained=pretrained,
        notes=(
            str(origin or f"{backbone} starts from random weights"),
            *([f"the weights were {told}"] if told else []),
            *_option_notes(header, plan.options),
            *notes,
        ),
        weights_sha256=file.sha256 if file else "",
        origin=origin,
    )


def _check_architecture(backbone: BackboneName, header: Header, weights: str) -> None:
    """Names agree up to timm's tag: `resnet18.a1_in1k` is a resnet18."""
    if not header.architecture:
        return
    same_name = header.architecture.partition(".")[0] == backbone.name.partition(".")[0]
    if not same_name or header.library not in ("", backbone.library):
        says = "/".join(part for part in (header.library, header.architecture) if part)
        raise ModelError(
            f"{weights} holds weights of {says}, but the backbone is {backbone}",
            hint=f"use --backbone {says}",
        )


def _load(
    stripped: libraries.Stripped, backbone: BackboneName, file: WeightsFile | None, weights: str
) -> str:
    if file:
        return libraries.load(stripped, file.tensors, where=weights)
    tensors = libraries.published_weights(backbone.library, backbone.name)
    return libraries.load(stripped, tensors, where=f"the published file of {backbone}")


def _option_notes(header: Header, merged: Mapping[str, Any]) -> tuple[str, ...]:
    followed = [f"{key} = {value!r}" for key, value in header.options.items() if merged[key] == value]
    overruled = [
        f"{key} = {merged[key]!r} instead of {value!r}"
        for key, value in header.options.items()
        if merged[key] != value
    ]
    notes = [f"the header of the weights builds it with {', '.join(followed)}"] if followed else []
    notes += [f"model.options overrules the header: {', '.join(overruled)}"] if overruled else []
    return tuple(notes)


def _sized(backbone: nn.Module, plan: _Plan) -> Classifier:
    libraries.set_image_size(backbone, plan.image_size, name=str(plan.backbone))
    return _with_head(backbone, plan)


def _with_head(backbone: nn.Module, plan: _Plan) -> Classifier:
    features = feature_count(backbone, plan.image_size, name=str(plan.backbone), channels=plan.channels)
    return Classifier(backbone, make_head(plan.head, features, plan.classes, dropout=plan.dropout))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
