"""Curves, confusion matrix and reliability as SVG that takes its colours from the page, light or dark.

matplotlib draws, without pyplot and so without global state. Colours are drawn as placeholders and then
replaced by the page's CSS variables; texts stay texts.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.calibration import ReliabilityBin
from saccade.evaluation.intervals import wilson_of_share
from saccade.records import EpochRow, Metrics
from saccade.report.render import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# placeholder -> CSS variable of templates/style.css; unlike any colour matplotlib draws by itself
INK, SOFT, LINE, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", FIRST: "--first", SECOND: "--second"}
FIRST_RGB = (31 / 255, 95 / 255, 168 / 255)  # of --first; a picture inside the SVG cannot read CSS
SECOND_RGB = (196 / 255, 102 / 255, 31 / 255)  # of --second

FAR_OFF = 30  # times the usual loss; more, and the rest is a flat line
COUNTS_UP_TO_CLASSES = 25  # more cells are too small for a number
MATRIX_CLASSES = 100  # more labels cannot be read; then those with most mistakes are shown
LABEL_CHARACTERS = 22


@dataclass(frozen=True, slots=True)
class Learning:
    """Epochs to draw: `first` is the number of the first, `kept` the place of that whose weights were kept.

    `head` is the fit of a head before them, None where there was none; `kept` None where that was kept.
    """

    epochs: Sequence[EpochRow]
    first: int = 1
    kept: int | None = None
    head: EpochRow | None = None


def curves(learnt: Learning) -> tuple[str, str]:
    """(loss, accuracy) of both parts over the epochs; phases, the kept epoch and the head are marked."""
    return _curve(learnt, "loss"), _curve(learnt, "accuracy")


def far_off(epochs: Sequence[EpochRow]) -> float:
    """The largest loss, where it would press all others to the floor of a picture; else 0."""
    losses = [loss for row in epochs for loss in (row.train_loss, row.validation_loss) if np.isfinite(loss)]
    largest = max(losses, default=0.0)
    return float(largest) if losses and largest > FAR_OFF * np.median(losses) else 0.0


def reliability_diagram(rows: Sequence[ReliabilityBin], *, intervals: bool = True) -> str:
    """How often the model was right against how sure it was, one bar a bin; the line is perfect honesty.

    Without `intervals`: several labels of an image are no independent answers.
    """
    figure, axes = _figure(4.7, 3.3, left=0.68)
    width = 1 / 15
    axes.bar(
        [row.low for row in rows],
        [row.accuracy for row in rows],
        width=width * 0.92,
        align="edge",
        color=FIRST,
    )
    axes.plot([0, 1], [0, 1], color=SECOND, linewidth=1.4, linestyle=(0, (4, 3)))
    for row in rows:
        sure, middle = wilson_of_share(row.accuracy, row.images), row.low + width / 2
        if intervals:
            axes.vlines(middle, sure.low, sure.high, color=INK, linewidth=1.1)
        top = sure.high if intervals else row.accuracy
        axes.text(middle, top + 0.015, str(row.images), ha="center", color=SOFT, fontsize=7.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.08), xlabel="Confidence", ylabel="Share that is right")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    return _svg(figure, "reliability")


def risk_curve(curve: Sequence[Mapping[str, float]]) -> str:
    """Share that is wrong among what is answered, against the share that is answered, the surest first."""
    figure, axes = _figure(5.4, 1.9, left=0.68)
    axes.plot([row["coverage"] for row in curve], [row["risk"] for row in curve], color=SECOND, linewidth=1.6)
    axes.set(xlim=(0, 1), xlabel="Share that is answered", ylabel="Of these wrong")
    axes.set_ylim(bottom=0)
    return _svg(figure, "risk")


def learning_curve(curve: Mapping[str, Any]) -> str:
    """A figure by the number of training images: points as measured, ahead of them the forecast's band.

    `curve` is that of `insights/learning_curve.json`; the band is left out where nothing is told.
    """
    _load_matplotlib()
    from matplotlib.ticker import FuncFormatter

    points, ahead = curve["points"], [row for row in curve["forecasts"] if row["told"]]
    figure, axes = _figure(5.4, 2.6, left=0.68)
    images, values = [row["images"] for row in points], [row["value"] for row in points]
    axes.vlines(images, [row["low"] for row in points], [row["high"] for row in points], color=FIRST)
    axes.plot(images, values, color=FIRST, linewidth=1.6, marker="o", markersize=4)
    if ahead:
        last = {"images": images[-1], **dict.fromkeys(("value", "low", "high"), curve["now"])}
        far = [last, *ahead]
        numbers = [row["images"] for row in far]
        low, high = [row["low"] for row in far], [row["high"] for row in far]
        axes.fill_between(numbers, low, high, color=SECOND, alpha=0.25, linewidth=0)
        axes.plot(numbers, [row["value"] for row in far], color=SECOND, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_xticks([images[0], images[-1], *(row["images"] for row in ahead[-1:])])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.set(xlabel="Training images")
    return _svg(figure, "more")


def shown_classes(metrics: Metrics, most: int = MATRIX_CLASSES) -> list[int]:
    """Columns of at most so many classes: all, or those with most mistakes (as true or predicted class)."""
    if len(metrics.classes) <= most:
        return list(range(len(metrics.classes)))
    counts = np.array(metrics.confusion)
    right = np.diag(counts)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * right
    return sorted(int(i) for i in np.argsort(-mistakes, kind="stable")[:most])


def confusion_matrix(metrics: Metrics) -> str:
    """Rows are true classes, columns predicted ones; the stronger, the larger the share of the row."""
    chosen = shown_classes(metrics)
    counts = np.array(metrics.confusion, dtype=float)[np.ix_(chosen, chosen)]
    rows = np.array(metrics.confusion, dtype=float)[chosen].sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros_like(counts), where=rows > 0)
    labels = [short(metrics.classes[i]) for i in chosen]
    size = len(chosen)
    cell = 0.62 if size <= 8 else 0.44 if size <= COUNTS_UP_TO_CLASSES else 0.14  # inches
    font = 9 if size <= COUNTS_UP_TO_CLASSES else 7  # points, of 72 to the inch
    room = 0.4 + 0.62 * font / 72 * max(map(len, labels))
    figure, axes = _figure(size * cell, size * cell, left=room, bottom=room, grid=False)
    axes.imshow(_shades(shares), interpolation="none", aspect="auto")
    fits = 0.7 * font / 72 * max(map(len, labels)) < cell
    axes.set_xticks(range(size), labels, rotation=0 if fits else 90, fontsize=font, parse_math=False)
    axes.set_yticks(range(size), labels, fontsize=font, parse_math=False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    axes.tick_params(length=0)
    edges, ends = np.arange(size + 1) - 0.5, (-0.5, size - 0.5)
    axes.vlines(edges, *ends, color=LINE, linewidth=0.4)
    axes.hlines(edges, *ends, color=LINE, linewidth=0.4)
    axes.set(xlim=ends, ylim=ends[::-1])
    if size <= COUNTS_UP_TO_CLASSES:
        _write_counts(axes, counts, shares)
    return _svg(figure, "confusion")


def _write_counts(axes: Axes, counts: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        # white on the strong cells, in both colour schemes
        colour = "#ffffff" if shares[row, column] > 0.55 else INK
        axes.text(
            column, row, f"{int(counts[row, column])}", ha="center", va="center", color=colour, fontsize=9
        )


def _shades(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows, columns, 4): a colour for what is right, one for mistakes, their opacity the share.

    Its square root lets rare mistakes show.
    """
    shades = np.empty((*shares.shape, 4))
    shades[..., :3] = SECOND_RGB
    shades[np.eye(len(shares), dtype=bool), :3] = FIRST_RGB
    shades[..., 3] = np.sqrt(shares)
    return shades


def _curve(learnt: Learning, figure_name: str) -> str:
    _load_matplotlib()
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    figure, axes = _figure(5.4, 2.6)
    numbers = np.arange(learnt.first, learnt.first + len(learnt.epochs))
    marker = "o" if len(numbers) < 30 else None
    for part, colour in (("train", FIRST), ("validation", SECOND)):
        values = np.array([getattr(row, f"{part}_{figure_name}") for row in learnt.epochs], dtype=float)
        values[~np.isfinite(values)] = np.nan
        axes.plot(numbers, values, color=colour, linewidth=1.6, marker=marker, markersize=3)
    _mark_phases(axes, learnt)
    axes.set(xlabel="Epoch", xlim=(learnt.first - 0.5, numbers[-1] + max(0.5, 2 - len(numbers))))
    if figure_name == "accuracy":
        axes.set_ylim(top=1.0)
        axes.margins(y=0.02)
    elif far_off(learnt.epochs):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _mark_kept(axes, learnt, figure_name)
    return _svg(figure, figure_name)


def _mark_kept(axes: Axes, learnt: Learning, figure_name: str) -> None:
    """The kept epoch with its value on validation images, and the head that was fitted before, as a line."""
    if learnt.head is not None:
        height = getattr(learnt.head, f"validation_{figure_name}")
        axes.axhline(height, color=SECOND, linewidth=0.9, linestyle=(0, (4, 3)))
    if learnt.kept is None:
        return
    number, value = (
        learnt.first + learnt.kept,
        getattr(learnt.epochs[learnt.kept], f"validation_{figure_name}"),
    )
    axes.axvline(number, color=SOFT, linewidth=0.9, linestyle=(0, (1.5, 2)))
    if not np.isfinite(value):
        return
    axes.plot([number], [value], color=SECOND, marker="o", markersize=7)
    place = learnt.kept / max(1, len(learnt.epochs) - 1)
    axes.annotate(
        f"{100 * value:.1f} %" if figure_name == "accuracy" else f"{value:.3g}",
        (number, value),
        xytext=(0, -14 if figure_name == "accuracy" else 8),
        textcoords="offset points",
        ha="right" if place > 0.8 else "left" if place < 0.2 else "center",
        color=INK,
        fontsize=9,
        annotation_clip=False,
    )


def _mark_phases(axes: Axes, learnt: Learning) -> None:
    start = learnt.first
    phases = [(name, len(list(rows))) for name, rows in groupby(learnt.epochs, key=lambda row: row.phase)]
    for name, epochs in phases if len(phases) > 1 else ():
        if start > learnt.first:
            axes.axvline(start - 0.5, color=LINE, linewidth=1.2)
        place = (start + (epochs - 1) / 2, 1.0)
        transform = axes.get_xaxis_transform()
        axes.text(
            *place,
            name,
            transform=transform,
            ha="center",
            va="bottom",
            fontsize=8,
            color=SOFT,
            parse_math=False,
        )
        start += epochs


def _figure(
    width: float, height: float, *, left: float = 0.52, bottom: float = 0.46, grid: bool = True
) -> tuple[Figure, Axes]:
    """Quiet axes of `width` x `height` inches in the placeholder colours, with room (inches) for labels."""
    _load_matplotlib()
    from matplotlib.figure import Figure

    right, top = 0.16, 0.24
    whole = (left + width + right, bottom + height + top)
    figure = Figure(figsize=whole)
    # placed by hand: matplotlib's own layouts measure every label, twice
    place = (left / whole[0], bottom / whole[1], width / whole[0], height / whole[1])
    axes = figure.add_axes(place)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom") and grid, color=LINE)
    axes.tick_params(colors=SOFT, labelsize=8.5, width=0.6)
    axes.xaxis.label.set(color=SOFT, fontsize=9)
    axes.yaxis.label.set(color=SOFT, fontsize=9)
    if grid:
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, axes


def _load_matplotlib() -> None:
    """Import it; where it keeps its list of fonts when its own folder cannot be written to is no news."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib.figure  # noqa: F401  # finds the fonts as well
    finally:
        logger.setLevel(level)


def _svg(figure: Figure, name: str) -> str:
    """The figure as SVG for use inside a page: page fonts and colours, unique ids, no header, no date."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        # a glyph that matplotlib's font lacks is drawn by the browser, so its absence is no news
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _for_page(buffer.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"', "", svg, count=3)  # HTML needs none of them
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the page's own fonts
    for placeholder, variable in VARIABLES.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return svg.replace("<svg ", '<svg role="img" aria-hidden="true" ', 1)


def short(name: str) -> str:
    """A name that a figure has room for, in one visible line."""
    return cut(name, LABEL_CHARACTERS)
