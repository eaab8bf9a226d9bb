"""What to say before training of what was asked for, where something else may have been meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saccade import extensions
from saccade.evaluation.remedies import FEW_IMAGES, least_side
from saccade.recipe import (
    ALWAYS_FROM_SCRATCH,
    AUTO_BACKBONE,
    CLASSIC_FIELDS,
    SHORT_FLAGS,
    WITHOUT_EFFECT,
    ModelConfig,
    Recipe,
    TrainConfig,
)
from saccade.records import Dataset, ImageRecord
from saccade.terminal import Terminal, counted

SMALL_SIDE_PIXELS = 64  # of the median image: what `fast_cnn` is for
TELL_NOTHING = 2  # images held out of a class: whatever is right of them is chance
SHOWN_CLASSES = 3


def shorter_side(records: Sequence[ImageRecord]) -> int:
    """Pixels of the median image's shorter side; 0 where there is no image."""
    sides = sorted(min(record.width, record.height) for record in records)
    return sides[len(sides) // 2] if sides else 0


def small_images_hint(dataset: Dataset, recipe: Recipe) -> str:
    """What to say where small images are about to be enlarged for the default pretrained backbone, or ""."""
    model = recipe.model
    if not recipe.starts_pretrained or model.weights or model.backbone != ModelConfig().backbone:
        return ""
    side = shorter_side(dataset.used("train"))
    if not 0 < side <= SMALL_SIDE_PIXELS:
        return ""
    return (
        f"the images are small ({side} pixels): --backbone fast_cnn trains on such images "
        "from scratch in minutes"
    )


def method_worked_out(recipe: Recipe) -> str:
    """Which method the given fields of training chose, and how to get another; "" where none did."""
    chosen = CLASSIC_FIELDS.intersection(key.removeprefix("train.") for key in recipe.given)
    if not recipe.starts_pretrained or not chosen or "train.method" in recipe.given:
        return ""
    given = [name for name in TrainConfig.model_fields if name in chosen]
    _, idle = WITHOUT_EFFECT["full"]
    kept = "".join(f" {_flag(name)} {getattr(recipe.train, name)}" for name in given if name not in idle)
    named = " and ".join(filter(None, [", ".join(map(_flag, given[:-1])), _flag(given[-1])]))
    return (
        f"finetune, because {named} {'was' if len(given) == 1 else 'were'} given: {_two_phases(recipe)}; "
        f"--method full{kept} fine-tunes everything after a fitted head"
    )


def _two_phases(recipe: Recipe) -> str:
    unfrozen, head = recipe.train.unfreeze, recipe.train.head_epochs
    layers = f"the last {counted(int(unfrozen), 'stage')}" if unfrozen.isdigit() else f"layers {unfrozen}"
    layers = "all layers" if unfrozen == "all" else layers
    first = f"{counted(head, 'epoch')} of the head, then " if head else ""
    return f"{first}{recipe.epochs} of {layers} at a rate of {recipe.finetune_learning_rate:.1g}"


def _flag(name: str) -> str:
    short = {field: flag for flag, field in SHORT_FLAGS.items()}
    return f"--{short.get(f'train.{name}', f'train.{name}')}"


def usual_side(recipe: Recipe) -> int:
    """Pixels that the backbone was made for, where the recipe names a size; 0 where nobody can tell."""
    model = recipe.model
    if recipe.data.image_size == "auto" or model.backbone in (AUTO_BACKBONE, *ALWAYS_FROM_SCRATCH):
        return 0
    if extensions.is_function_name(model.backbone) or model.backbone in extensions.names("backbones"):
        return 0  # from outside
    from saccade.models import preparation  # imports torch

    return preparation(model.backbone, weights=model.weights)[0].size


def warn_of_small_input(recipe: Recipe, terminal: Terminal) -> None:
    """Say, before images are read, that a backbone was made for far larger ones than the recipe wants."""
    side, usual = recipe.data.image_size, usual_side(recipe)
    if side == "auto" or not side < least_side(usual, recipe):
        return
    terminal.warn(
        f"--image-size {side} is far below the {usual} pixels that {recipe.model.backbone} was made for: "
        "it will hardly see more than colours",
        hint=f"leave --image-size out, or give {least_side(usual, recipe)} or more; for images that are that "
        "small themselves there is --backbone fast_cnn",
    )


def say_classes_nobody_can_judge(dataset: Dataset, terminal: Terminal) -> None:
    """Name, before training, classes of which so few images are held out that their figures mean nothing."""
    parts = [part for part in ("train", "validation", "test") if dataset.used(part)]
    counts = {part: dataset.counts(part) for part in parts}
    held_out = [counts[part] for part in parts if part != "train"]
    few = [label for label in dataset.classes if any(0 < of[label] <= TELL_NOTHING for of in held_out)]
    if not few:
        return
    few.sort(key=lambda label: sum(of[label] for of in counts.values()))
    shown = "; ".join(_sizes(counts, label) for label in few[:SHOWN_CLASSES])
    more = f"; and {len(few) - SHOWN_CLASSES} more" if len(few) > SHOWN_CLASSES else ""
    terminal.say(
        f"  warning {counted(len(few), 'class has', 'classes have')} too few images to be judged: "
        f"{shown}{more}. "
        "What is said of a class by 1 or 2 images is chance, and the model hardly learns it: "
        f"collect {FEW_IMAGES} images or more of each, merge it with another class, or take it out"
    )


def _sizes(counts: Mapping[str, Mapping[str, int]], label: str) -> str:
    """How many images of a class each part has.

    >>> _sizes({"train": {"cat": 3}, "test": {"cat": 1}}, "cat")
    "'cat' 3 train, 1 test"
    """
    return f"{label!r} {', '.join(f'{of[label]} {part}' for part, of in counts.items())}"
