"""Which classes are mistaken for which: a matrix whose cells lead to the photos, and photos of each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.records import Metrics, Predictions
from saccade.report import figures as drawn
from saccade.report.facts import Facts
from saccade.report.gallery import Coming, Gallery

CLASSES_SHOWN = 15  # in the matrix and with photos; the others are in a folded picture and in the table
OF_A_KIND = 3  # photos of a class that are surely right, surely wrong, least sure
MIXUPS_SHOWN, OF_A_MIXUP = 24, 4  # pairs of classes, and photos of each
CONFUSED_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Cell:
    """Images of one true class that were called one class; `share` of the class; `link` to their photos."""

    images: int
    share: float
    right: bool
    link: str = ""


@dataclass(frozen=True, slots=True)
class Photo:
    """An image with what it was taken for."""

    picture: Coming
    label: str
    predicted: str
    confidence: float

    @property
    def right(self) -> bool:
        return self.label == self.predicted


class Answers:
    """Predictions with what is asked of them again and again, worked out once."""

    def __init__(self, predictions: Predictions) -> None:
        self.paths, self.labels, self.wrong = predictions.paths, predictions.labels, predictions.wrong
        self.predicted, self.confidence = predictions.predicted, predictions.confidence
        self.margin = _margins(predictions)

    def photos(self, rows: Iterable[int], picture: Gallery) -> list[Photo]:
        return [
            Photo(picture(self.paths[i]), self.labels[i], self.predicted[i], float(self.confidence[i]))
            for i in rows
        ]


def confusion(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """The matrix of at most 15 classes as a table, its pairs with photos; all classes as a picture."""
    metrics = facts.figures
    if metrics is None or metrics.multi_label:
        return None
    answers = Answers(facts.predictions) if facts.predictions and picture.at_hand else None
    shown = drawn.shown_classes(metrics, CLASSES_SHOWN)
    mixups = _mixups(metrics, answers, shown, picture)
    links = {(mixup["row"], mixup["column"]): mixup["anchor"] for mixup in mixups}
    if answers is not None:
        links |= {(i, i): class_anchor(i) for i in shown if metrics.per_class[i].support}
    support = {row.label: row.support for row in metrics.per_class}
    return {
        "labels": [metrics.classes[i] for i in shown],
        "rows": [_row(metrics, i, shown, links) for i in shown],
        "others": len(shown) < len(metrics.classes),
        "classes": len(metrics.classes),
        "svg": drawn.confusion_matrix(metrics) if len(shown) < len(metrics.classes) else "",
        "drawn": len(drawn.shown_classes(metrics)),
        "pairs": [
            {**pair, "of": support[pair["true"]]}
            for pair in metrics.extra.get("confused_pairs", [])[:CONFUSED_SHOWN]
        ],
        "mixups": mixups,
    }


def class_anchor(index: int) -> str:
    """Where the photos of a class stand in the page; names of classes may hold anything, numbers do not."""
    return f"class-{index}"


def _row(metrics: Metrics, i: int, shown: list[int], links: dict[tuple[int, int], str]) -> dict[str, Any]:
    counts, support = metrics.confusion[i], metrics.per_class[i].support
    cells = [Cell(counts[j], counts[j] / max(1, support), i == j, links.get((i, j), "")) for j in shown]
    return {
        "label": metrics.classes[i],
        "cells": cells,
        "others": support - sum(cell.images for cell in cells),
        "images": support,
    }


def _mixups(
    metrics: Metrics, answers: Answers | None, shown: list[int], picture: Gallery
) -> list[dict[str, Any]]:
    """Pairs of shown classes with the photos of each, the most frequent first."""
    if answers is None:
        return []
    pairs = sorted(
        ((metrics.confusion[i][j], i, j) for i in shown for j in shown if i != j and metrics.confusion[i][j]),
        key=lambda entry: (-entry[0], entry[1:]),
    )
    found: dict[tuple[str, str], list[int]] = {}
    for row in answers.wrong:  # the most confident first
        found.setdefault((answers.labels[row], answers.predicted[row]), []).append(row)
    told = []
    for images, i, j in pairs[:MIXUPS_SHOWN]:
        rows = found.get((metrics.classes[i], metrics.classes[j]), [])[:OF_A_MIXUP]
        told.append(
            {
                "row": i, "column": j, "anchor": f"mixup-{i}-{j}", "images": images,
                "true": metrics.classes[i], "predicted": metrics.classes[j],
                "photos": answers.photos(rows, picture),
            }
        )  # fmt: skip
    return told


# -- photos of each class --------------------------------------------------------------------------------


def class_photos(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """Of each class, the least found first: the surest right and wrong answers, and the least sure."""
    metrics, predictions = facts.figures, facts.predictions
    if not picture.at_hand or metrics is None or predictions is None or predictions.named is not None:
        return None
    present = [i for i, row in enumerate(metrics.per_class) if row.support]
    worst = sorted(present, key=lambda i: (metrics.per_class[i].recall, metrics.classes[i]))[:CLASSES_SHOWN]
    shown = set(drawn.shown_classes(metrics, CLASSES_SHOWN)) & set(present)
    chosen = [*worst, *sorted(shown - set(worst))]
    answers, labels = Answers(predictions), np.array(predictions.labels, dtype=object)
    rows = [
        {
            "anchor": class_anchor(i),
            "figures": metrics.per_class[i],
            "kinds": _kinds(answers, np.flatnonzero(labels == metrics.classes[i]), picture),
        }
        for i in chosen
    ]
    return {"rows": rows, "left_out": len(present) - len(rows)}


def _kinds(answers: Answers, rows: Any, picture: Gallery) -> dict[str, list[Photo]]:
    """The surest right answers, the surest wrong ones, and the nearest to a second class; each photo once."""
    predicted, labels = answers.predicted, answers.labels
    surest = sorted(rows, key=lambda i: (-answers.confidence[i], answers.paths[i]))
    right = [i for i in surest if predicted[i] == labels[i]][:OF_A_KIND]
    wrong = [i for i in surest if predicted[i] != labels[i]][:OF_A_KIND]
    rest = sorted({*rows} - {*right, *wrong}, key=lambda i: (answers.margin[i], answers.paths[i]))
    return {
        "Surest right": answers.photos(right, picture),
        "Surest wrong": answers.photos(wrong, picture),
        "Least sure": answers.photos(rest[:OF_A_KIND], picture),
    }


def _margins(predictions: Predictions) -> Any:
    """(images,) how far the first class is ahead of the second."""
    if predictions.probabilities.shape[1] < 2:
        return predictions.confidence
    two = np.partition(predictions.probabilities, -2, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]
