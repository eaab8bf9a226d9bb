"""How often the 95 % intervals of `metrics/*.json` hold the truth, on simulated data alone and in groups.

    python benchmarks/intervals.py [--datasets 2000] [--images 500]

Images have one of five classes; a tenth are of the rarest. The classifier takes neighbouring classes for each
other and is too sure of itself. In groups, four images on average show the same patient: one class for all of
them, and some patients are harder than others. The truth is the figure of half a million images drawn in the
same way. A figure of each class is covered as often as its classes are on average. The last column ignores
the groups, as most tools do. Exit code 1: a coverage of the others lies outside 93 to 97 %. Calibration
errors are shown, not judged: chance alone makes them larger, and their intervals are wide in groups and a
little narrow for the smooth error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.answer import softmax
from saccade.evaluation.answers import answers
from saccade.evaluation.calibration_errors import NAMES, CalibrationErrors
from saccade.evaluation.metrics import METRICS, class_metrics, measure
from saccade.evaluation.ranking import rank_classes
from saccade.evaluation.risk_coverage import RiskCoverage
from saccade.records import ClassMetrics, Metrics, Predictions

CLASSES = ("a", "b", "c", "d", "e")
SHARES = (0.3, 0.25, 0.2, 0.15, 0.1)
IMAGES_A_GROUP = 4
SIGNAL, NEIGHBOUR, TOO_SURE, HARDER = 2.2, 0.8, 1.4, 1.0
TRUTH_IMAGES = 500_000
WANTED = (0.93, 0.97)
NOT_JUDGED = ("ece", *(f"{name} ECE" for name in NAMES))
OF_CLASSES = ("precision", "recall", "f1", "average_precision", "auroc")
SURE = 0.9  # the confidence from which answers are counted in `right where sure`


@dataclass(frozen=True, slots=True)
class Simulated:
    """Predictions with known labels, and the group of each path; None where images stand alone."""

    predictions: Predictions
    groups: Mapping[str, str] | None


def simulated(images: int, *, grouped: bool, seed: int) -> Simulated:
    """So many images; in groups, as many on average."""
    random = np.random.default_rng([seed, grouped])
    groups = images // IMAGES_A_GROUP if grouped else images
    sizes = 1 + random.poisson(IMAGES_A_GROUP - 1, size=groups) if grouped else np.ones(groups, np.int64)
    of = np.repeat(np.arange(groups), sizes)
    truth = random.choice(len(CLASSES), p=SHARES, size=groups)[of]
    logits = random.normal(size=(len(of), len(CLASSES)))
    rows = np.arange(len(of))
    logits[rows, truth] += SIGNAL + (HARDER * random.normal(size=groups)[of] if grouped else 0.0)
    logits[rows, (truth + 1) % len(CLASSES)] += NEIGHBOUR
    paths = tuple(f"{row:07d}" for row in rows)
    labels = tuple(CLASSES[label] for label in truth)
    together = {path: f"group {group}" for path, group in zip(paths, of, strict=True)} if grouped else None
    return Simulated(Predictions(paths, labels, CLASSES, softmax(TOO_SURE * logits)), together)


def true_figures(made: Simulated) -> dict[str, float]:
    """Every figure by its name, without intervals, which would take long for so many images."""
    data = answers(made.predictions)
    ranked = rank_classes(data.truth, data.probabilities, data.groups)
    rows = class_metrics(data.confusion, data.classes, ranked)
    values = {name: metric.of(made.predictions) for name, metric in METRICS.items()}
    errors = CalibrationErrors(data.confidence, data.correct).values()
    areas = RiskCoverage(data.confidence, data.correct).areas(np.ones((1, len(data.truth))))
    return {
        **values,
        **_by_class(rows),
        "macro_auroc": float(np.mean([row.auroc for row in rows])),
        "top-2": float((data.rank < 2).mean()),
        **{name: float(area[0]) for name, area in zip(("aurc", "augrc"), areas, strict=True)},
        **dict(zip((f"{name} ECE" for name in NAMES), errors, strict=True)),
        "right where sure": float(data.correct[data.confidence >= SURE].mean()),
    }


def _by_class(rows: tuple[ClassMetrics, ...]) -> dict[str, float]:
    return {f"{name} of {row.label}": getattr(row, name) for name in OF_CLASSES for row in rows}


def intervals(metrics: Metrics) -> Iterator[tuple[str, Any]]:
    """Name and [low, high] of every figure."""
    found = metrics.extra["intervals"]
    yield "accuracy", (metrics.accuracy.low, metrics.accuracy.high)
    yield "top-2", found["top_k"]["2"]
    yield from metrics.extra["risk_coverage"]["intervals"].items()
    errors = metrics.extra["calibration"]["after"]["intervals"]
    yield from ((f"{name} ECE", interval) for name, interval in errors.items())
    rows = metrics.extra["answer_or_ask"]["rows"]
    yield from (("right where sure", (row["low"], row["high"])) for row in rows if row["threshold"] == SURE)
    for name, interval in found.items():
        if name in OF_CLASSES:
            yield from zip((f"{name} of {label}" for label in metrics.classes), interval, strict=True)
        elif name != "top_k":
            yield name, interval


def coverage(
    datasets: int, images: int, *, grouped: bool, truth_images: int = TRUTH_IMAGES, ignored: bool = False
) -> dict[str, float]:
    """Share of the data sets whose interval holds the truth, by figure; `ignored`: as if without groups."""
    true = true_figures(simulated(truth_images, grouped=grouped, seed=0))
    held: dict[str, list[bool]] = {}
    for seed in range(1, datasets + 1):
        made = simulated(images, grouped=grouped, seed=seed)
        measured = measure(made.predictions, top_k=(1, 2), groups=None if ignored else made.groups)
        for name, interval in intervals(measured):
            if interval is not None:
                inside = interval[0] <= true[name] <= interval[1]
                held.setdefault(name.partition(" of ")[0], []).append(inside)
    return {name: float(np.mean(found)) for name, found in held.items()}


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: one row a figure, one column a way of drawing."""
    lines = [f"| figure | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]
    for name in next(iter(columns.values())):
        cells = " | ".join(f"{100 * column[name]:.1f}" for column in columns.values())
        lines.append(f"| {name}{' of a class' if name in OF_CLASSES else ''} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", type=int, default=2000)
    parser.add_argument("--images", type=int, default=500)
    asked = parser.parse_args()
    size = asked.datasets, asked.images
    judged = {"alone": coverage(*size, grouped=False), "in groups": coverage(*size, grouped=True)}
    ignored = coverage(*size, grouped=True, ignored=True)
    print(f"Coverage in %, {asked.datasets:,} data sets of {asked.images} images each\n")
    print(table({**judged, "groups ignored": ignored}))
    outside = [
        f"{name} ({where}): {100 * value:.1f} %"
        for where, column in judged.items()
        for name, value in column.items()
        if name not in NOT_JUDGED and not WANTED[0] <= value <= WANTED[1]
    ]
    print(
        "\n"
        + (
            "\n".join(["Outside 93 to 97 %:", *outside])
            if outside
            else "All within 93 to 97 %, calibration errors aside."
        )
    )
    return int(bool(outside))


if __name__ == "__main__":
    sys.exit(main())
