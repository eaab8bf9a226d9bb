"""The one next command: what a remedy advises, put into the command that made the run."""

from __future__ import annotations

import pytest

from saccade.recipe import SHORT_FLAGS, Recipe
from saccade.report.next_step import advised_flags, next_command


@pytest.mark.parametrize(
    ("remedy", "flags"),
    [
        ("Give it more time: --method full --epochs 20, in a new --out folder.", "--method full --epochs 20"),
        (
            "In this order: collect more images; decay more (--train.weight-decay 0.05).",
            "--train.weight-decay 0.05",
        ),
        ("Name them with --group-pattern '(.*)_\\d+'. Images help.", "--group-pattern (.*)_\\d+"),
        ("Name them with --group or --group-pattern.", ""),
        ("Give it more time: a longer --time-limit, in a new --out folder.", ""),
        ("compare backbones (--backbone auto --weights FOLDER)", ""),
        ("take a wider network (--model.options width=64)", "--model.options width=64"),
        ("take a larger backbone or a larger --image-size.", ""),
        ("move them (--repair-split).", "--repair-split"),
        ("Set --train.class_weights auto, or add images.", "--train.class_weights auto"),
    ],
)
def test_the_first_complete_flags_are_advised(remedy: str, flags: str) -> None:
    assert " ".join(word for pair in advised_flags(remedy) for word in pair if word) == flags


def test_advised_flags_are_fields_of_the_recipe() -> None:
    for flag, value in advised_flags("Use a third (--method full --lr 0.001), or --augment strong."):
        Recipe.from_mapping({SHORT_FLAGS[flag.removeprefix("--")]: value})


def test_a_flag_takes_the_place_of_the_one_that_was_given() -> None:
    command = ["saccade", "train", "photos", "--train.lr=1", "--out=runs/a-2", "--epochs", "5"]
    assert next_command(command, "Try --lr 0.1.") == "saccade train photos --out runs/a-3 --epochs 5 --lr 0.1"
    repaired = ["saccade", "train", "--repair-split", "photos"]
    assert next_command(repaired, "(--repair-split)") == "saccade train photos --repair-split"
    refused = ["saccade", "train", "--no-repair-split", "photos"]
    assert next_command(refused, "(--repair-split)") == "saccade train photos --repair-split"
    scratch = ["saccade", "train", "--no-pretrained", "photos", "--backbone", "small_cnn"]
    both = "--backbone resnet18 --pretrained"
    assert next_command(scratch, f"start from pretrained weights ({both})") == f"saccade train photos {both}"


def test_nothing_is_advised_without_flags_or_a_command() -> None:
    assert next_command(["saccade", "train", "photos"], "Nothing needs to be done.") == ""
    assert next_command((), "Try --lr 0.1.") == ""
    assert next_command(["saccade", "train", "--resume", "runs/a"], "Try --lr 0.1.") == ""
