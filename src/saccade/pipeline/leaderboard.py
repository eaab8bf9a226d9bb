"""`saccade leaderboard`: all runs of a folder, ranked by those that were measured on the same images."""

from __future__ import annotations

import difflib
import glob
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.errors import RecipeError, RunError, SaccadeError
from saccade.evaluation import compare as comparing
from saccade.evaluation.compare import SIGNIFICANT
from saccade.evaluation.metrics import METRICS
from saccade.pipeline.compare import OPTIMISTIC, check_out
from saccade.pipeline.sides import Costs, costs
from saccade.pipeline.together import together_in_run
from saccade.records import Metrics, Predictions
from saccade.report.facts import Facts, read_facts
from saccade.report.render import render
from saccade.run_folder import RunFolder, csv_bytes, write_bytes, write_text
from saccade.terminal import Terminal, counted

LEVELS = 2  # how deep below a folder run folders are looked for
BY = (*METRICS, "mean_average_precision")
LOWER_IS_BETTER = ("log_loss", "ece", "brier")
ACCURACIES = ("accuracy", "micro_f1")  # equal where an image has one label; their test is exact
COLUMNS = (
    *("fingerprint", "part", "images", "place", "run", "by", "value", "low", "high", "p_value"),
    *("method", "backbone", "seconds", "bytes", "milliseconds"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished run. `value` is the figure that ranks it; `part` what it was measured on.

    `images` is the same for runs that were measured on the same images with the same labels.
    """

    name: str
    run: RunFolder
    part: str
    images: str
    predictions: Predictions
    value: float
    interval: tuple[float, float] | None
    method: str
    backbone: str
    costs: Costs

    def figure(self, by: str) -> str:
        """Value and interval as text; a share in per cent."""
        scale, digits, sign = (100, 1, " %") if by.endswith("accuracy") else (1, 3, "")
        low_high = (
            f" ({' to '.join(f'{scale * x:.{digits}f}' for x in self.interval)})" if self.interval else ""
        )
        return f"{scale * self.value:.{digits}f}{sign}{low_high}"


@dataclass(frozen=True, slots=True)
class Ranking:
    """Runs that were measured on the same images, best first.

    `p_values` of each but the first: that it equals the best; None where the figure has no test.
    """

    by: str
    entries: tuple[Entry, ...]
    p_values: tuple[float, ...] | None

    @property
    def best(self) -> Entry:
        return self.entries[0]

    @property
    def places(self) -> list[str]:
        """1 for the best, = for runs that cannot be told from it, else the number."""
        p_values = self.p_values or (0.0,) * (len(self.entries) - 1)
        return ["1", *("=" if p >= SIGNIFICANT else str(n) for n, p in enumerate(p_values, start=2))]

    @property
    def title(self) -> str:
        """What is ranked, and on what."""
        runs, images = counted(len(self.entries), "run"), len(self.best.predictions)
        words = f"{runs} by {self.by} on {images:,} {self.best.part}"
        return f"{words} images (fingerprint {self.best.images[:12]})"

    @property
    def notes(self) -> list[str]:
        same = self.places.count("=")
        notes = [
            f"= cannot be told from the best on these images (paired test): {counted(same, 'run')}."
        ] * bool(same)
        if self.p_values is None:
            notes.append(f"There is no paired test of {self.by} here: no run is marked as equal to the best.")
        return [*notes, *[OPTIMISTIC] * (self.best.part == "validation")]


def leaderboard(
    places: Sequence[str], terminal: Terminal, *, by: str = "accuracy", out: str = ""
) -> tuple[Ranking, ...]:
    """`saccade leaderboard`: the finished runs in `places`, a ranking for each set of images.

    places: run folders, folders that hold some, or patterns. by: a name of BY. `out` is a .csv or a page
    (.html). Runs that are not finished, or damaged, are named with what is wrong. Raises SaccadeError.
    """
    check_out(out)
    _check_by(by)
    by_place = {place: list(runs_in(place)) for place in places}
    runs = list(dict.fromkeys(run for found in by_place.values() for run in found))
    if not runs:
        raise RunError(
            f"there is no run folder in {', '.join(places)}",
            hint="give the folder that holds them, such as runs/",
        )
    entries, others = _read(runs, by)
    others += [(place, "no run folder there") for place, there in by_place.items() if not there]
    with terminal.progress("testing against the best", "rankings") as progress:
        found = []
        for alike in _alike(entries):
            found.append(_ranking(alike, by))
            progress(len(found), 0)
    _say(found, others, terminal)
    if out:
        _write(found, others, Path(out))
        terminal.say(f"Written   {out}")
    return tuple(found)


def _check_by(by: str) -> None:
    if by not in BY:
        close = difflib.get_close_matches(by, BY, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise RecipeError(f"--by {by}: there is no such figure", hint=f"{meant}choose from: {', '.join(BY)}")


def runs_in(place: str) -> Iterator[Path]:
    """Run folders at, or up to LEVELS below, a path or pattern; a run is not searched for others."""
    paths = [Path(place)] if Path(place).exists() else [Path(found) for found in sorted(glob.glob(place))]
    for path in paths:
        yield from _below(path, LEVELS)


def _below(path: Path, levels: int) -> Iterator[Path]:
    if (path / "recipe.toml").is_file():
        yield path
    elif levels and path.is_dir():
        for inside in sorted(path.iterdir()):
            if inside.is_dir() and not inside.is_symlink():
                yield from _below(inside, levels - 1)


def _read(runs: Sequence[Path], by: str) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The finished ones, and each other one with what is wrong."""
    entries, others = [], []
    for path in runs:
        try:
            entries.append(_entry(RunFolder(path), by))
        except SaccadeError as error:
            others.append((str(path), error.problem))
    return entries, others


def _entry(run: RunFolder, by: str) -> Entry:
    facts = read_facts(run)
    if not facts.record.finished or facts.figures is None or facts.predictions is None:
        raise RunError("not finished")
    value, interval = _figure(facts.figures, facts.predictions, by)
    recipe = facts.recipe
    return Entry(
        str(run.root),
        run,
        facts.part,
        _fingerprint(facts, facts.predictions),
        facts.predictions,
        value,
        interval,
        recipe.train.method if recipe else "",
        facts.backbone,
        costs(run),
    )


def _figure(metrics: Metrics, predictions: Predictions, by: str) -> tuple[float, tuple[float, float] | None]:
    """As `metrics/*.json` has it; from the predictions where it was written before there was this figure."""
    extra, accuracy = metrics.extra, metrics.accuracy
    if by == "accuracy":
        return accuracy.value, (accuracy.low, accuracy.high)
    interval = extra.get("intervals", {}).get(by)
    value = extra.get("metrics", {}).get(by, getattr(metrics, by, None))
    if value is None and not metrics.multi_label and by in METRICS:
        value = METRICS[by].of(predictions)
    if value is None:
        raise RunError(f"it has no {by}")
    return float(value), (interval[0], interval[1]) if interval else None


def _fingerprint(facts: Facts, predictions: Predictions) -> str:
    """SHA-256 over content and label of the images: the same for the same images, wherever they lie."""
    contents = {record.path: record.sha256 for record in facts.dataset}
    pairs = zip(predictions.paths, predictions.labels, strict=True)
    lines = sorted(f"{contents.get(path) or path}\0{label}\n" for path, label in pairs)
    kind = "several" if predictions.named is not None else "one"
    text = "".join([facts.part, "\n", kind, "\n", *lines])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


# -- rankings --------------------------------------------------------------------------------------------


def _alike(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries of the same images together, the most runs first."""
    together: dict[str, list[Entry]] = {}
    for entry in entries:
        together.setdefault(entry.images, []).append(entry)
    return sorted(together.values(), key=len, reverse=True)


def _ranking(entries: Sequence[Entry], by: str) -> Ranking:
    sign = 1 if by in LOWER_IS_BETTER else -1
    ordered = tuple(sorted(entries, key=lambda entry: (sign * entry.value, entry.name)))
    return Ranking(by, ordered, _tested(ordered, by) if len(ordered) > 1 else ())


def _tested(entries: Sequence[Entry], by: str) -> tuple[float, ...] | None:
    contents = [{r.path: r.sha256 for r in entry.run.read_dataset()} for entry in entries]
    models = comparing.align([entry.predictions for entry in entries], contents).predictions
    groups = together_in_run(entries[0].run)
    several = models[0].named is not None
    if by == "accuracy" or (by in ACCURACIES and not several):
        return tuple(one.p_value for one in comparing.compare_all(models, groups))
    if several or by not in METRICS:
        return None
    return tuple(comparing.metric_tests(METRICS[by].of, models, comparing.groups_of(models[0], groups)))


# -- what is shown ---------------------------------------------------------------------------------------


def _say(found: Sequence[Ranking], others: Sequence[tuple[str, str]], terminal: Terminal) -> None:
    for ranking in found:
        terminal.say(f"{ranking.title}:", *_table(ranking), *(f"  {note}" for note in ranking.notes), "")
    if others:
        terminal.say("Not ranked:", *(f"  {name}: {why}" for name, why in others))


def _table(ranking: Ranking) -> list[str]:
    cells = [("", "run", ranking.by, "method", "backbone", "training", "MB"), *_rows(ranking)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _rows(ranking: Ranking) -> list[tuple[str, ...]]:
    return [
        (
            place,
            entry.name,
            entry.figure(ranking.by),
            entry.method,
            entry.backbone,
            *entry.costs.in_words()[:2],
        )
        for place, entry in zip(ranking.places, ranking.entries, strict=True)
    ]


def _write(found: Sequence[Ranking], others: Sequence[tuple[str, str]], path: Path) -> None:
    if path.suffix == ".csv":
        write_bytes(path, csv_bytes(COLUMNS, (cells for ranking in found for cells in _cells(ranking))))
        return
    rankings = [{"ranking": ranking, "rows": _rows(ranking)} for ranking in found]
    write_text(path, render("leaderboard.html", rankings=rankings, others=others))


def _cells(ranking: Ranking) -> Iterator[list[Any]]:
    p_values: Sequence[Any] = ("", *(ranking.p_values or [""] * (len(ranking.entries) - 1)))
    for place, entry, p_value in zip(ranking.places, ranking.entries, p_values, strict=True):
        low, high = entry.interval or ("", "")
        spent = (entry.costs.seconds, entry.costs.size_bytes, entry.costs.milliseconds)
        yield [
            *(entry.images, entry.part, len(entry.predictions), place, entry.name),
            *(ranking.by, entry.value, low, high, p_value, entry.method, entry.backbone),
            *("" if value is None else value for value in spent),
        ]
