"""`saccade compare`: which run is better on the same images, and is the difference real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.errors import RecipeError
from saccade.evaluation import compare as comparing
from saccade.evaluation.compare import Aligned, Changed, Comparison
from saccade.pipeline.sides import Costs, Side, costs, pictures, sides
from saccade.records import Interval
from saccade.report.compare_page import Pair, Row, compare_html
from saccade.run_folder import csv_bytes, write_bytes, write_text
from saccade.terminal import Terminal, counted

ENDINGS = (".csv", ".html")
CHANGED_SHOWN = 20  # of all pairs together
COLUMNS = (
    *("path", "label", "first", "first_answer", "first_confidence"),
    *("second", "second_answer", "second_confidence", "right"),
)
OPTIMISTIC = "These are validation images, which chose the models: the figures are optimistic."


@dataclass(frozen=True, slots=True)
class Compared:
    """Runs on the images that all have: what each gets right and costs, and each against the first.

    `decided` are images whose label a person changed between the runs: all are judged by the new one.
    """

    part: str
    sides: tuple[Side, ...]
    aligned: Aligned
    accuracies: tuple[Interval, ...]
    costs: tuple[Costs, ...]
    comparisons: tuple[Comparison, ...]
    decided: frozenset[str] = frozenset()

    @property
    def first(self) -> Side:
        return self.sides[0]

    @property
    def others(self) -> tuple[Side, ...]:
        return self.sides[1:]

    @property
    def changed(self) -> list[tuple[Changed, ...]]:
        """For each other run, the images that it or the first alone gets right."""
        first, *others = self.aligned.predictions
        return [comparing.changed_sides(first, other) for other in others]

    @property
    def sentences(self) -> list[str]:
        pairs = zip(self.comparisons, self.others, strict=True)
        return [one.in_words(self.first.name, other.name) for one, other in pairs]


def compare(
    paths: Sequence[str], terminal: Terminal, *, part: str = "", out: str = ""
) -> tuple[Comparison, ...]:
    """`saccade compare`: the first run with each other one, on the images that all were measured on.

    `out` is a .csv of all images that changed sides, or a page (.html) with their pictures. Raises
    SaccadeError.
    """
    check_out(out)
    found = compared(paths, part)
    for line in notes(found):
        terminal.say(line)
    for line in table(found):
        terminal.say(line)
    for line in found.sentences:
        terminal.say(line)
    _say_changed(found, terminal)
    if out:
        _write(found, Path(out))
        terminal.say(f"Written   {out}")
    return found.comparisons


def check_out(out: str) -> None:
    """Raise RecipeError for a file name that is neither a table's nor a page's."""
    if out and Path(out).suffix not in ENDINGS:
        raise RecipeError(f"--out is no name of a .csv or .html file: {out}", hint="end it in .csv or .html")


def compared(paths: Sequence[str], part: str = "") -> Compared:
    """The runs in `paths` on the images that all have; raises SaccadeError where they cannot be compared."""
    chosen, runs = sides(paths, part)
    aligned = comparing.align([side.predictions for side in runs], [side.contents for side in runs])
    new_labels = {path: label for side in runs for path, label in side.new_labels.items()}
    aligned = aligned.judged_by(new_labels)
    groups = runs[0].groups
    together = comparing.groups_of(aligned.predictions[0], groups)
    return Compared(
        chosen,
        runs,
        aligned,
        tuple(comparing.accuracy(predictions, together) for predictions in aligned.predictions),
        tuple(costs(side.run) for side in runs),
        comparing.compare_all(aligned.predictions, groups),
        frozenset(path for paths in aligned.relabelled for path in paths if path in new_labels),
    )


# -- in words ----------------------------------------------------------------------------------------------


def notes(found: Compared) -> list[str]:
    """What is to be known of the images before one believes the figures."""
    return [
        *_different_images(found),
        *_different_labels(found),
        *[OPTIMISTIC] * (found.part == "validation"),
    ]


def _different_images(found: Compared) -> list[str]:
    aligned = found.aligned
    if not any(aligned.left_out):
        return []
    common = counted(len(aligned.predictions[0]), f"{found.part} image")
    left = [f"{n:,} of {side.name}" for n, side in zip(aligned.left_out, found.sides, strict=True) if n]
    return [f"Compared on {common} that all were measured on; left out: {', '.join(left)}."]


def _different_labels(found: Compared) -> list[str]:
    pairs = zip(found.aligned.relabelled, found.sides, strict=True)
    told = [
        f"{counted(len(paths), 'image')} had another label in {side.name} than in {found.first.name} "
        f"({paths[0]}{', ...' if len(paths) > 1 else ''}): judged by {_whose_labels(found, paths)}."
        for paths, side in pairs
        if paths
    ]
    return [*told, *_without_decided(found)]


def _whose_labels(found: Compared, paths: Sequence[str]) -> str:
    if found.decided.issuperset(paths):
        return "the label that was decided on"
    own = f"the labels of {found.first.name}"
    return f"{own}, or the label that was decided on" if found.decided.intersection(paths) else own


def _without_decided(found: Compared) -> list[str]:
    """The verdicts on the other images: a label that was changed on a model's advice favours that model."""
    if not found.decided or len(found.decided) == len(found.aligned.predictions[0]):
        return []
    left = comparing.compare_all(found.aligned.without(found.decided), found.first.groups)
    pairs = zip(left, found.others, strict=True)
    words = " ".join(one.in_words(found.first.name, other.name) for one, other in pairs)
    return [f"Without the images that were decided about: {words}"]


def table(found: Compared) -> list[str]:
    """A line a run: accuracy with its interval, time of training, megabytes, milliseconds a photo."""
    width = max(len(side.name) for side in found.sides)
    head = f"{'':<{width}}  {'accuracy (95 % interval)':<24} {'training':>8} {'MB':>6} {'ms':>6}"
    rows = zip(found.sides, found.accuracies, found.costs, strict=True)
    return [head.rstrip(), *(_line(side.name, width, share, cost) for side, share, cost in rows)]


def _line(name: str, width: int, share: Interval, cost: Costs) -> str:
    seconds, size, latency = cost.in_words()
    return f"{name:<{width}}  {share!s:<24} {seconds:>8} {size:>6} {latency:>6}"


def _say_changed(found: Compared, terminal: Terminal) -> None:
    most = max(1, CHANGED_SHOWN // len(found.others))
    for other, changed in zip(found.others, found.changed, strict=True):
        gained = sum(image.gained for image in changed)
        terminal.say(
            f"{counted(len(changed), 'image')} changed sides: {gained:,} only {other.name} gets right, "
            f"{len(changed) - gained:,} only {found.first.name}{':' if changed else '.'}"
        )
        for image in changed[:most]:
            terminal.say(f"  {_told(image, found.first.name, other.name)}")
        if len(changed) > most:
            terminal.say(f"  and {len(changed) - most:,} more (--out FILE.csv or FILE.html has all)")


def _told(image: Changed, first: str, second: str) -> str:
    answers = (
        (first, image.first, image.first_confidence),
        (second, image.second, image.second_confidence),
    )
    said = [
        f"{name} says {answer or 'no label'}{'' if sure is None else f' ({sure:.0%})'}"
        for name, answer, sure in answers
    ]
    return f"{image.path}: {image.label or 'no label'}; {', '.join(said)}"


# -- as a file ---------------------------------------------------------------------------------------------


def _write(found: Compared, path: Path) -> None:
    if path.suffix == ".csv":
        write_bytes(path, csv_bytes(COLUMNS, _cells(found)))
    else:
        write_text(path, _page(found))


def _cells(found: Compared) -> list[list[str]]:
    first = found.first.name
    return [
        [
            *(image.path, image.label, first, image.first, _number(image.first_confidence)),
            *(other.name, image.second, _number(image.second_confidence)),
            "second" if image.gained else "first",
        ]
        for other, changed in zip(found.others, found.changed, strict=True)
        for image in changed
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _page(found: Compared) -> str:
    read_image, limits = pictures(found.first)
    rows = zip(found.sides, found.accuracies, found.costs, strict=True)
    pairs = zip(found.others, found.comparisons, found.sentences, found.changed, strict=True)
    return compare_html(
        part=found.part,
        images=len(found.aligned.predictions[0]),
        notes=notes(found),
        rows=[Row(side.name, share, *cost.in_words()) for side, share, cost in rows],
        pairs=[
            Pair(found.first.name, other.name, one, words, changed) for other, one, words, changed in pairs
        ],
        read_image=read_image,
        limits=limits,
    )
