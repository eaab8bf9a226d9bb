"""What images do to a run: each illness from made-up figures that have it, and a neighbour that has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from saccade.evaluation.diagnosis import diagnose
from saccade.evaluation.metrics import measure
from saccade.evaluation.remedies import Evidence
from saccade.evaluation.shortcut_use import ShortcutUse, shortcut_use
from saccade.recipe import Recipe
from saccade.records import EpochRow, Finding, Metrics, Predictions


def predicted(counts: Sequence[Sequence[int]]) -> Predictions:
    """Answers with this confusion matrix (true class, answered class), classes a, b, c, ..."""
    names = tuple("abcdefgh"[: len(counts)])
    pairs = [(t, p) for t, row in enumerate(counts) for p, n in enumerate(row) for _ in range(n)]
    rows = np.full((len(pairs), len(names)), 0.1 / (len(names) - 1))
    rows[np.arange(len(pairs)), [p for _, p in pairs]] = 0.9
    paths = tuple(f"{i:05d}" for i in range(len(pairs)))
    return Predictions(paths, tuple(names[t] for t, _ in pairs), names, rows)


def figures(counts: Sequence[Sequence[int]]) -> Metrics:
    return measure(predicted(counts))


def even(accuracy: float, images: int = 400) -> Metrics:
    """Four classes, mistakes spread over the others."""
    each = images // 4
    wrong = round(each * (1 - accuracy) / 3)
    return figures([[each - 3 * wrong if a == b else wrong for b in range(4)] for a in range(4)])


def found(history: Sequence[EpochRow] = (), **evidence: Any) -> dict[str, Finding]:
    return {finding.kind: finding for finding in diagnose(Evidence(tuple(history), **evidence))}


FIT = (EpochRow("head", 1, 0.0, 0.1, 1.0, 1.5, 0.6, 1.0),)


# -- too few to tell -------------------------------------------------------------------------------------


def test_a_small_validation_part_is_named_although_the_test_part_is_large() -> None:
    few = found(validation=even(0.75, images=40), test=even(0.9))["too_few_to_tell"]
    assert few.message.startswith("40 validation images tell little")
    assert "left to chance" in few.message
    assert "--folds 5" in few.remedy
    assert "too_few_to_tell" not in found(validation=even(0.75, images=200), test=even(0.9))
    for refused in ({"split.folds": 5}, {"evaluate.size": "auto"}):
        other = found(validation=even(0.75, images=40), recipe=Recipe.from_mapping(refused))
        assert "--folds" not in other["too_few_to_tell"].remedy


# -- parts that differ -----------------------------------------------------------------------------------

BRIGHT = {
    "part": "validation",
    "properties": [{"property": "brightness", "distance": 0.9, "train": "0.4", "part": "0.8"}],
}
PROMISED = {"accuracy": 0.95, "images": 300, "validation": 0.6}


def test_held_out_training_images_far_above_validation_are_another_kind_of_image() -> None:
    told = found(FIT, validation=even(0.6), train=even(1.0), held_out=PROMISED)
    assert told.keys() & {"overfitting", "fits_its_features", "part_shift"} == {"part_shift"}
    message = told["part_shift"].message
    assert "held out have an accuracy of 95.0 %, validation images 60.0 %" in message
    assert "Nothing that was measured" in message
    assert "--method full --augment strong" in told["part_shift"].remedy
    measured = found(FIT, validation=even(0.6), train=even(1.0), held_out=PROMISED, differences=[BRIGHT])
    assert "Validation images differ in brightness (0.8 against 0.4)" in measured["part_shift"].message


@pytest.mark.parametrize(
    "held_out",
    [
        {},
        {"accuracy": 0.68, "images": 300, "validation": 0.6},  # a small gap
        {"accuracy": 0.72, "images": 20, "validation": 0.6},  # chance, of few scenes
    ],
)
def test_a_gap_that_cross_validation_has_as_well_is_no_shift(held_out: dict[str, float]) -> None:
    told = found(FIT, validation=even(0.6), train=even(1.0), held_out=held_out)
    assert "part_shift" not in told
    assert "fits_its_features" in told


def test_hidden_series_are_no_shift() -> None:
    series = {"count": 9, "images": 9, "pattern": "", "held_out": 0.95, "apart": 0.0, "validation": 0.6}
    told = found(FIT, validation=even(0.6), held_out=PROMISED, series=series)
    assert "part_shift" not in told
    assert "hidden_series" in told


def test_parts_that_differ_without_harm_are_no_illness() -> None:
    assert "part_shift" not in found(validation=even(0.9), train=even(0.93), differences=[BRIGHT])
    assert "part_shift" in found(validation=even(0.7), train=even(0.93), differences=[BRIGHT])
    dark = {**BRIGHT, "part": "test"}
    harmed = found(validation=even(0.9), test=even(0.6), differences=[dark])["part_shift"]
    assert harmed.message.startswith("The test images are of another kind")


# -- pairs -----------------------------------------------------------------------------------------------


def test_two_classes_that_nothing_parts() -> None:
    pair = found(validation=figures([[21, 19, 0], [18, 22, 0], [0, 1, 39]]), side=32, short_side=64)[
        "not_separable"
    ]
    assert "cannot part 'a' and 'b' (53.8 % of 80 images)" in pair.message
    assert "merge 'a' and 'b'" in pair.remedy
    assert "--image-size 64" in pair.remedy
    small = found(validation=figures([[21, 19, 0], [18, 22, 0], [0, 1, 39]]), side=64, short_side=64)
    assert "--image-size" not in small["not_separable"].remedy


@pytest.mark.parametrize(
    "counts",
    [
        [[34, 6, 0], [5, 35, 0], [0, 1, 39]],  # confused now and then
        [[5, 4, 0], [4, 5, 0], [0, 0, 40]],  # too few
        [[40, 0, 0], [40, 0, 0], [0, 0, 40]],  # always one of the two: class shares, or never predicted
        [[14, 13, 13], [13, 14, 13], [13, 13, 14]],  # nothing is learnt at all
        [[20, 20], [20, 20]],  # no others
    ],
)
def test_pairs_that_are_something_else(counts: list[list[int]]) -> None:
    assert "not_separable" not in found(validation=figures(counts))


# -- shortcuts -------------------------------------------------------------------------------------------


def use(**changes: Any) -> ShortcutUse:
    given = {"alike": 60, "alike_right": 58, "against": 12, "against_right": 2, "followed": 9} | changes
    return ShortcutUse("brightness", 0.85, **given)


def test_a_model_that_is_taken_in_by_a_property_goes_by_it() -> None:
    told = found(validation=even(0.9), shortcuts=[use()])["shortcut"]
    assert told.severity == "warning"
    assert "96.7 % of 60 images are right; where it points to another, 16.7 % of 12, and 9" in told.message
    for other in (
        use(against_right=11, followed=1),  # it looks at something else
        use(against_right=6, followed=1),  # it fails there, but otherwise
        use(alike=8, alike_right=8, against=6, against_right=3, followed=3),  # chance
    ):
        assert "shortcut" not in found(validation=even(0.9), shortcuts=[other])
    assert "shortcut" not in found(FIT, validation=even(0.6), held_out=PROMISED, shortcuts=[use()])
    leaning = use(against=41, against_right=16, followed=23)  # hard pictures, of which half follow it
    perhaps = found(validation=even(0.9), shortcuts=[leaning])["shortcut"]
    assert (perhaps.severity, perhaps.message[:16]) == ("info", "The model may go")
    hidden = found(validation=even(0.99), shortcuts=[use(against=2, against_right=1, followed=1)])
    assert hidden["shortcut"].severity == "info", "nothing tells whether it is used"
    assert "fine" in hidden


def test_images_are_counted_by_where_the_property_points() -> None:
    answers = predicted([[3, 1], [2, 2]])  # paths 0 to 3 are of class a, the others of b
    guesses = {"00000": "a", "00001": "b", "00003": "b", "00004": "a", "00006": "b"}
    told = shortcut_use("light", guesses, answers, accuracy=0.8, of_the_file=False)
    assert (told.alike, told.alike_right) == (2, 2)
    assert (told.against, told.against_right, told.followed) == (3, 1, 2)
