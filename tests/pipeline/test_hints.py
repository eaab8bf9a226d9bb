"""What is said before training of a method, an image size and classes that nobody may have meant."""

from __future__ import annotations

import io
from typing import Any

import pytest

from saccade.pipeline.hints import method_worked_out, say_classes_nobody_can_judge, warn_of_small_input
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.terminal import Terminal


def said(tell: Any, *arguments: Any) -> str:
    stream = io.StringIO()
    tell(*arguments, Terminal(stream=stream))
    return " ".join(stream.getvalue().split())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"train.epochs": 6, "train.lr": 0.01},
            "finetune, because --epochs and --lr were given: 5 epochs of the head, then 6 of the last 2 "
            "stages at a rate of 0.0001; "
            "--method full --epochs 6 --lr 0.01 fine-tunes everything after a fitted head",
        ),
        (
            {"train.unfreeze": "all", "train.head_epochs": 0},
            "finetune, because --head-epochs and --unfreeze were given: 20 of all layers at a rate of 3e-05; "
            "--method full fine-tunes everything after a fitted head",
        ),
        ({"train.epochs": 6, "train.method": "finetune"}, ""),
        ({"train.epochs": 6, "train.method": "full"}, ""),
        ({"train.epochs": 6, "model.backbone": "small_cnn"}, ""),
        ({"train.optimizer": "sgd"}, ""),
    ],
)
def test_a_method_that_was_worked_out_from_flags_is_named(given: dict[str, object], words: str) -> None:
    recipe = Recipe.from_mapping(given)
    assert method_worked_out(recipe) == words
    if words:
        assert recipe.train.method == "finetune"


@pytest.mark.parametrize(
    ("given", "least"),
    [
        ({"data.image_size": 7}, 56),
        ({"data.image_size": 48}, 56),
        ({"data.image_size": 56}, 0),
        ({}, 0),
        ({"data.image_size": 32, "model.backbone": "small_cnn"}, 0),
        ({"data.image_size": 31, "model.backbone": "test_efficientnet"}, 40),
        ({"data.image_size": 7, "model.backbone": "test_efficientnet", "model.pretrained": False}, 40),
    ],
)
def test_images_far_smaller_than_a_backbone_was_made_for_are_warned_of(
    given: dict[str, object], least: int
) -> None:
    text = said(warn_of_small_input, Recipe.from_mapping(given))
    assert (f"give {least} or more" in text) == bool(least), text
    assert bool(text) == bool(least)


def test_classes_that_nobody_can_judge_are_named_with_what_to_do(tmp_path: Any) -> None:
    sizes = {"a": (40, 8, 8), "b": (14, 3, 3), "c": (4, 1, 1), "d": (1, 1, 1)}
    parts = ("train", "validation", "test")
    records = tuple(
        ImageRecord(path=f"{label}/{part}{i}.png", label=label, part=part)
        for label, counts in sizes.items()
        for part, count in zip(parts, counts, strict=True)
        for i in range(count)
    )
    text = said(
        say_classes_nobody_can_judge, Dataset(tmp_path, records, tuple(sizes), FolderStorage(tmp_path))
    )
    assert (
        "warning 2 classes have too few images to be judged: 'd' 1 train, 1 validation, 1 test; 'c' 4" in text
    )
    assert "collect 20 images or more of each, merge it with another class, or take it out" in text
    enough = tuple(record for record in records if record.label in "ab")
    assert not said(
        say_classes_nobody_can_judge, Dataset(tmp_path, enough, ("a", "b"), FolderStorage(tmp_path))
    )
