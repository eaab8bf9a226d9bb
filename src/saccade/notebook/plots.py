"""matplotlib figures of a run: curves, confusion, pictures. Imported only where a figure is asked for.

Figures are made without pyplot: nothing global, nothing to close, and a notebook shows each once.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from saccade.evaluation.remedies import fitted, kept_index, phases
from saccade.records import EpochRow, Metrics

TRAIN, VALIDATION, QUIET = "#1f5fa8", "#c8591a", "#777777"
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#9dc0e6", TRAIN])
SHARP_BELOW_PIXELS = 64  # smaller pictures are shown pixel by pixel
CLASSES_WITH_COUNTS = 40  # more cells are too small for a number
CLASSES_SHOWN = 100
LABEL_CHARACTERS = 24
TILES_PER_ROW, TILE_INCHES = 6, 1.6
CAPTION_POINTS = 8


class Plot(Figure):
    """A figure that a notebook shows also where nobody imported pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", facecolor="white")
        return file.getvalue()


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture, uint8 (height, width, 3), and the words above it; None where it cannot be read."""

    pixels: NDArray[np.uint8] | None
    caption: str


def _figure(width: float, height: float) -> Plot:
    return Plot(figsize=(width, height), dpi=100, layout="constrained")


def short(label: str) -> str:
    """A label cut to a length that figures have room for."""
    return (
        label if len(label) <= LABEL_CHARACTERS else f"{label[: LABEL_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


def history_plot(history: Sequence[EpochRow], *, augmented: bool) -> Plot:
    """Loss and accuracy of both parts, an epoch a point; the kept epoch is marked.

    Fits of a head on frozen features are points of their own: nothing goes on from one to the next.
    augmented: whether training images were changed at random, so that their figures are harder to reach.
    """
    step = "Fit" if fitted(history) else "Epoch"
    figure = _figure(9, 3.4)
    loss, accuracy = figure.subplots(1, 2)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        _curve(axes, history, name, "training (augmented)" if augmented else "training")
        axes.axvline(
            kept_index(history) + 1, color=QUIET, linewidth=1, linestyle=":", label=f"kept {step.lower()}"
        )
        axes.set(xlabel=step, xlim=(0.5, len(history) + 0.5))
    loss.set_ylabel("Loss (cross-entropy, nats)")
    loss.set_ylim(0, 1.08 * loss.get_ylim()[1])
    accuracy.set_ylabel("Accuracy")
    accuracy.set_ylim(top=1)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    kept = history[kept_index(history)]
    figure.suptitle(
        f"Training: kept {step.lower()} {kept_index(history) + 1} of {len(history)}, "
        f"validation accuracy {kept.validation_accuracy:.1%}",
        fontsize=11,
    )
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _curve(axes: Axes, history: Sequence[EpochRow], name: str, training: str) -> None:
    # training is the wider line, below: where the two are equal, both are seen
    parts = (("train", TRAIN, training, 3.0, 7.5), ("validation", VALIDATION, "validation", 1.2, 3.5))
    for part, colour, label, width, size in parts:
        start = 1
        for _, rows in phases(history):
            values = np.array([getattr(row, f"{part}_{name}") for row in rows], dtype=float)
            values[~np.isfinite(values)] = np.nan
            axes.plot(
                np.arange(start, start + len(rows)), values, color=colour, marker="o", markersize=size,
                linewidth=width, linestyle="none" if fitted(rows) else "-", clip_on=False,
                label=label if start == 1 else "",
            )  # fmt: skip
            start += len(rows)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    _name_phases(axes, history)


def _name_phases(axes: Axes, history: Sequence[EpochRow]) -> None:
    """Each phase's name above its epochs, a line between two, where there is more than one."""
    lengths = [(name, len(rows)) for name, rows in phases(history)]
    start = 1
    for name, epochs in lengths if len(lengths) > 1 else ():
        if start > 1:
            axes.axvline(start - 0.5, color=QUIET, linewidth=0.6)
        middle = start + (epochs - 1) / 2
        axes.text(
            middle, 1.0, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=8, color=QUIET, parse_math=False,
        )  # fmt: skip
        start += epochs


def confusion_plot(metrics: Metrics, part: str) -> Plot:
    """Counts by true and predicted class; the darker, the larger the share of the true class.

    More than 100 classes are too many to read: then those with most mistakes are shown.
    """
    chosen = _most_confused(metrics)
    counts = np.array(metrics.confusion, dtype=float)
    totals = counts[chosen].sum(axis=1, keepdims=True)
    counts = counts[np.ix_(chosen, chosen)]
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    labels = [short(metrics.classes[column]) for column in chosen]
    cell = 0.62 if len(chosen) <= 10 else 0.26 if len(chosen) <= CLASSES_WITH_COUNTS else 0.13  # inches
    font = 9 if len(chosen) <= 10 else 7 if len(chosen) <= CLASSES_WITH_COUNTS else 5
    room = 0.9 + 0.6 * font / 72 * max(map(len, labels))  # inches for the labels
    side = max(2.2, cell * len(chosen)) + room
    figure = _figure(side + 0.8, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    turned = 0 if max(map(len, labels)) * font * 0.65 / 72 < cell else 90
    axes.set_xticks(range(len(chosen)), labels, rotation=turned, fontsize=font, parse_math=False)
    axes.set_yticks(range(len(chosen)), labels, fontsize=font, parse_math=False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    shown = "" if len(chosen) == len(metrics.classes) else f", the {len(chosen)} most confused classes"
    axes.set_title(f"Confusion: {metrics.images:,} {part} images{shown}", fontsize=11)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1, decimals=0))
    bar.set_label("Share of the true class")
    if len(chosen) <= CLASSES_WITH_COUNTS:
        _write_counts(axes, counts, shares, font)
    return figure


def _most_confused(metrics: Metrics) -> list[int]:
    counts = np.array(metrics.confusion)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    return sorted(int(column) for column in np.argsort(-mistakes, kind="stable")[:CLASSES_SHOWN])


def _write_counts(axes: Axes, counts: NDArray[np.float64], shares: NDArray[np.float64], font: int) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(
            column, row, f"{int(counts[row, column])}", ha="center", va="center", color=colour, fontsize=font
        )


def tiles_plot(tiles: Sequence[Tile], title: str) -> Plot:
    """Pictures in rows, the caption above each."""
    longest = max((len(line) for tile in tiles for line in tile.caption.split("\n")), default=0)
    width = max(TILE_INCHES, 0.6 * CAPTION_POINTS / 72 * longest)
    columns = max(1, min(len(tiles), int(TILES_PER_ROW * TILE_INCHES / width)))
    rows = -(-len(tiles) // columns)
    lines = max((tile.caption.count("\n") + 1 for tile in tiles), default=1)
    figure = _figure(max(4.5, width * columns), 0.5 + rows * (1.5 + 0.17 * lines))
    figure.suptitle(
        "\n".join(textwrap.wrap(title, int(13 * max(4.5, width * columns)))), fontsize=11, parse_math=False
    )
    for place, tile in enumerate(tiles, start=1):
        _draw(figure.add_subplot(rows, columns, place), tile)
    return figure


def _draw(axes: Axes, tile: Tile) -> None:
    axes.axis("off")
    axes.set_anchor("N")  # captions in a line, whatever the shapes below
    axes.set_title(tile.caption, fontsize=CAPTION_POINTS, parse_math=False)
    if tile.pixels is None:
        axes.set_box_aspect(1)
        axes.text(0.5, 0.5, "image not at hand", ha="center", va="center", fontsize=8, color=QUIET)
        return
    sharp = max(tile.pixels.shape[:2]) < SHARP_BELOW_PIXELS
    axes.imshow(tile.pixels, interpolation="nearest" if sharp else None)
