"""The network of a run: built from the recipe, with every "auto" of data and model worked out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.errors import ModelError, RecipeError
from saccade.images.channels import has_16_bits
from saccade.images.decoder import Limits, read_pixels
from saccade.models import BACKBONES, BuiltModel, build_model, preparation, weights_origin
from saccade.models.backbones import find_backbone
from saccade.models.fast_cnn import Whitening
from saccade.models.finetune import unfreeze
from saccade.models.network import feature_count
from saccade.preprocess import RGB, PixelFormat, Preprocess
from saccade.recipe import DEFAULT_BACKBONE, Recipe
from saccade.records import Dataset, ImageRecord
from saccade.training.schedules import growing_side
from saccade.transforms import evaluation_batches

# usual input sizes of networks that have none of their own, for the images to choose from
SIZES = {"small_cnn": (32, 64, 96, 128, 160, 224), "fast_cnn": (28, 32, 40, 48, 56, 64)}
WHITENING_IMAGES = 1000
STATISTICS_IMAGES = 500
SMALLEST_STD, SMALLEST_STD_16 = 0.02, 1e-3  # of 8 bits, and of 16, of which cameras often use a small part
CHECKED_SIDE = 32  # for a trial of building one of our own networks, before the images are known
DROP_PATH = {"timm": "drop_path_rate", "torchvision": "stochastic_depth_prob"}
DROP_PATH_LAYERS = ("DropPath", "StochasticDepth")
BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)  # timm's own are subclasses


def build_network(dataset: Dataset, recipe: Recipe) -> BuiltModel:
    """The untrained network with its preprocessing, every "auto" of data and model worked out."""
    model = recipe.model
    built = build_model(
        model.backbone,
        len(dataset.classes),
        pretrained=model.pretrained,
        weights=model.weights,
        head=model.head,
        dropout=model.dropout,
        image_size=input_size(dataset, recipe),
        options=build_options(recipe),
        seed=recipe.seed,
        accept_licence=model.accept_licence,
        pixels=pixel_format(dataset, recipe),
    )
    assert built.pretrained == recipe.starts_pretrained, f"{model.backbone}: one question, two answers"
    _check_drop_path(built.module, recipe)
    preprocess = with_overrides(built.preprocess, dataset, recipe, pretrained=built.pretrained)
    for part in built.module.modules():
        if isinstance(part, Whitening):
            part.whiten(some_inputs(dataset, preprocess, recipe))
    architecture = {**built.architecture, **({"flip": True} if recipe.evaluate.flip else {})}
    return dataclasses.replace(built, preprocess=preprocess, architecture=architecture)


def some_inputs(dataset: Dataset, preprocess: Preprocess, recipe: Recipe) -> torch.Tensor:
    """(n, 3, S, S): at most 1,000 training images, evenly chosen, as they are evaluated."""
    records = dataset.used("train")
    chosen = records[:: -(-len(records) // WHITENING_IMAGES)]
    batches = evaluation_batches(
        dataset.storage,
        chosen,
        dataset.classes,
        preprocess,
        len(chosen),
        limits=Limits.of(recipe.data, preprocess.pixels),
    )
    return next(iter(batches)).images


def check_buildable(recipe: Recipe) -> None:
    """Raise ModelError for a backbone, weights file or option that cannot be, before any image is read.

    RecipeError for what does not go with the backbone.
    """
    refuse_muon_on_pretrained(recipe)
    _refuse_large_images(recipe)
    model = recipe.model
    pixels = PixelFormat(recipe.data.channels)  # how many bits changes no layer
    preparation(model.backbone, weights=model.weights, pixels=pixels)
    if recipe.starts_pretrained and (origin := weights_origin(model.backbone, model.weights)):
        origin.check_licence(model.accept_licence)
    own = model.backbone in BACKBONES
    options = build_options(recipe)
    if own or options or not model.pretrained:
        size = recipe.data.image_size
        build_model(
            model.backbone,
            2,
            pretrained=own and model.pretrained,
            weights="" if model.pretrained and not own else model.weights,
            image_size=CHECKED_SIDE if size == "auto" and own else None if size == "auto" else size,
            options=options,
            pixels=pixels,
        )


def build_options(recipe: Recipe) -> dict[str, str | int | float | bool]:
    """`model.options`, and `model.drop_path` as the backbone's library calls it.

    Raises RecipeError where the backbone has no such option, or both set it.
    """
    model = recipe.model
    if not model.drop_path:
        return model.options
    name = DROP_PATH.get(find_backbone(model.backbone).library, "")
    if not name or name in model.options:
        why = f"model.options sets {name} as well" if name else f"{model.backbone} has no blocks to skip"
        raise RecipeError(f"model.drop_path = {model.drop_path:g}: {why}", hint="leave model.drop_path out")
    return {**model.options, name: model.drop_path}


def _check_drop_path(module: torch.nn.Module, recipe: Recipe) -> None:
    """Some backbones take the option and have nothing that it could concern."""
    skipped = any(type(part).__name__ in DROP_PATH_LAYERS for part in module.modules())
    if recipe.model.drop_path and not skipped:
        raise RecipeError(
            f"model.drop_path = {recipe.model.drop_path:g}: {recipe.model.backbone} has no blocks to skip",
            hint="leave model.drop_path out",
        )


def refuse_muon_on_pretrained(recipe: Recipe) -> None:
    """Raise RecipeError where Muon would train pretrained filters, whatever the images are."""
    if recipe.train.optimizer == "muon" and recipe.starts_pretrained:
        raise RecipeError(
            "train.optimizer = muon turns every filter by the same large step, which destroys the "
            f"pretrained ones of backbone {recipe.model.backbone}",
            hint="use adamw or sgd, or train from scratch (--no-pretrained)",
        )


def _refuse_large_images(recipe: Recipe) -> None:
    side, largest = recipe.data.image_size, SIZES["fast_cnn"][-1]
    if recipe.model.backbone == "fast_cnn" and side != "auto" and side > largest:
        raise RecipeError(
            f"data.image_size = {side}: fast_cnn is made for images of {largest} pixels and less (usual are "
            f"{', '.join(map(str, SIZES['fast_cnn']))}), its three blocks see no more of a larger one",
            hint=f"use one of these sizes, or another backbone (small_cnn, {DEFAULT_BACKBONE})",
        )


def check_network(network: BuiltModel, recipe: Recipe) -> None:
    """Raise RecipeError for what this network cannot be trained with, before a run is begun."""
    norms = any(isinstance(module, BATCH_NORMS) for module in network.module.modules())
    if norms and recipe.train.batch_size == 1:
        raise RecipeError(
            f"train.batch_size = 1: the BatchNorm layers of {recipe.model.backbone} compare the images of a "
            "batch with each other",
            hint="use 2 or more",
        )
    if network.pretrained and recipe.train.method in ("finetune", "tail"):  # others have no use for it
        unfreeze(network.module, recipe.train.unfreeze)  # only to refuse here what it has not got
    size = recipe.evaluate.size
    if isinstance(size, int) and (why := one_size_only(network, (size,))):
        raise RecipeError(f"evaluate.size = {size}: {why}", hint="leave it out")
    if recipe.train.progressive_size:
        _check_smaller_images(network, recipe)


def one_size_only(network: BuiltModel, sizes: Sequence[int]) -> str:
    """Why a network that was built for one size of images does not take these as well, or ""."""
    backbone, name, own = network.module.backbone, network.architecture["backbone"], network.preprocess.size
    if hasattr(backbone, "set_input_size") and set(sizes) != {own}:
        return f"{name} has position embeddings for images of {own} pixels only"
    try:
        for size in sizes:
            feature_count(backbone, size, name=name, channels=network.preprocess.pixels.count)
    except ModelError:
        return f"{name} was built for images of {own} pixels only"
    return ""


def _check_smaller_images(network: BuiltModel, recipe: Recipe) -> None:
    side = growing_side(0.0, start=recipe.train.progressive_size, full=network.preprocess.size)
    try:
        channels = network.preprocess.pixels.count
        feature_count(network.module.backbone, side, name=recipe.model.backbone, channels=channels)
    except ModelError:
        raise RecipeError(
            f"train.progressive_size = {recipe.train.progressive_size:g}: {recipe.model.backbone} does not "
            f"take images of {side} x {side} pixels, with which training would start",
            hint="leave it out",
        ) from None


def planned_preprocess(dataset: Dataset, recipe: Recipe) -> Preprocess:
    """What `build_network` would come to, without building or fetching anything."""
    model, size = recipe.model, input_size(dataset, recipe)
    pixels = pixel_format(dataset, recipe)
    own, _ = preparation(model.backbone, weights=model.weights, image_size=size, pixels=pixels)
    return with_overrides(own, dataset, recipe, pretrained=recipe.starts_pretrained)


def input_size(dataset: Dataset, recipe: Recipe) -> int | None:
    """Side of the input where the recipe or the images decide it; None: the backbone's own."""
    if recipe.data.image_size != "auto":
        return recipe.data.image_size
    usual = SIZES.get(recipe.model.backbone)
    return fitting_size(dataset.used("train"), usual) if usual else None


def fitting_size(records: Iterable[ImageRecord], usual: Sequence[int] = SIZES["small_cnn"]) -> int:
    """The smallest usual input size that holds the median image's short side."""
    sides = sorted(min(record.width, record.height) for record in records)
    median = sides[len(sides) // 2] if sides else usual[-1]
    return next((size for size in usual if size >= median), usual[-1])


def with_overrides(own: Preprocess, dataset: Dataset, recipe: Recipe, *, pretrained: bool) -> Preprocess:
    """The weights' own preprocessing (promise 3), with what the recipe sets in its place."""
    fields = ("resize", "interpolation", "crop_fraction", "mean", "std")
    chosen = {name: value for name in fields if (value := getattr(recipe.data, name)) != "auto"}
    from_images = not pretrained or own.pixels.count not in (1, 3)  # weights know of RGB, and of gray
    if (from_images or own.pixels.channels == "3") and not {"mean", "std"} <= chosen.keys():
        mean, std = channel_statistics(dataset, recipe)
        chosen = {"mean": mean, "std": std, **chosen}
    return dataclasses.replace(own, **chosen)


def pixel_format(dataset: Dataset, recipe: Recipe) -> PixelFormat:
    """What the recipe declares a pixel to be; bits "auto" are 16 where a used image has them."""
    data = recipe.data
    if data.channels == RGB.channels:
        return RGB
    wide = any(has_16_bits(record.mode) for record in dataset.used())
    return PixelFormat(data.channels, data.bits if data.bits != "auto" else 16 if wide else 8)


def channel_statistics(dataset: Dataset, recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel (0 to 1) over at most 500 training images, evenly chosen."""
    form = pixel_format(dataset, recipe)
    records = dataset.used("train")
    stride = -(-len(records) // STATISTICS_IMAGES)
    sums = np.zeros((3, form.count))
    for record in records[::stride]:
        pixels = read_pixels(dataset.storage, record, Limits.of(recipe.data, form))
        values = pixels.reshape(-1, form.count) / float(form.largest)
        sums += (np.ones(form.count), values.mean(axis=0), (values**2).mean(axis=0))
    mean = sums[1] / sums[0]
    least, digits = (SMALLEST_STD, 4) if form.bits == 8 else (SMALLEST_STD_16, 6)
    std = np.sqrt(np.maximum(sums[2] / sums[0] - mean**2, least**2))
    return _rounded(mean, digits), _rounded(std, digits)


def _rounded(values: NDArray[np.float64], digits: int) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in values)
