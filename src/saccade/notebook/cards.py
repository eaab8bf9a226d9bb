"""The card of a classifier in a notebook, its text in one line, and the report in a frame: escaped HTML.

Colours are those of the page around it, light or dark; nothing is loaded, nothing is a script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from saccade.pipeline.promises import NOT_CHECKED
from saccade.records import Metrics
from saccade.run_record import RunRecord
from saccade.terminal import counted, printable

CLASSES_SHOWN = 30
BOX = "border: 1px solid rgba(128, 128, 128, 0.5); border-radius: 6px; padding: 0.7em 1em; max-width: 46em"
CHIP = "border: 1px solid rgba(128, 128, 128, 0.5); border-radius: 1em; padding: 0 0.6em; white-space: nowrap"
FLAGS = "(<code>--method full</code> is <code>method=&quot;full&quot;</code> in Python.)"
GONE = (
    "It predicts and exports. Its run folder is gone, and with it pictures, report and <code>evaluate</code>."
)
NEXT = (
    ("predict", 'model.predict(["photo.jpg"])'),
    ("see what went wrong", "model.show_mistakes(), model.plot_confusion()"),
    ("read everything", "model.show_report()"),
    ("take it elsewhere", 'model.export("model.onnx")'),
)


@dataclass(frozen=True, slots=True)
class Page:
    """An HTML file that a notebook shows in a frame; its text says where the file is."""

    path: Path
    html: str
    height: int

    def __repr__(self) -> str:
        return f"{self.path} (open it in a browser)"

    def _repr_html_(self) -> str:
        # sandboxed: class and file names in it were written by others
        return (
            f'<iframe sandbox srcdoc="{escape(self.html)}" width="100%" height="{self.height}" '
            'style="border: 1px solid rgba(128, 128, 128, 0.5)"></iframe>'
        )


def in_one_line(record: RunRecord, measured: Mapping[str, Metrics]) -> str:
    """What came out, as plain text."""
    classes = counted(len(record.classes), "class", "classes")
    part, figures = _result(measured)
    if figures is None:
        return f"training began: {classes}"
    if figures.mean_average_precision is not None:
        value = f"mean average precision {figures.mean_average_precision:.3f}"
        return f"fitted: {classes}, {part} {value} ({figures.images:,} images)"
    return (
        f"fitted: {classes}, {part} accuracy {_percent(figures.accuracy.value)} ({figures.images:,} images)"
    )


def unfitted(call: str) -> str:
    """The card before `fit`."""
    return _box(
        call, ["Not fitted yet: call <code>fit(&quot;photos/&quot;)</code> with a folder of class folders."]
    )


def without_run(call: str, classes: Sequence[str], known: str = "") -> str:
    """The card of a model without figures; `known` is what its file tells of it."""
    told = "It predicts; its run folder, with figures and report, is not here."
    return _box(call, [block for block in (_chips(classes), escape(known), told) if block])


def fitted(call: str, record: RunRecord, measured: Mapping[str, Metrics], *, gone: bool = False) -> str:
    """The card: result, classes, what to mind, what next. `gone`: the run folder is no longer there."""
    part, figures = _result(measured)
    mind = _list(_to_mind(part, record))
    blocks = [_headline(part, figures), _chips(record.classes), mind, GONE if gone else _next()]
    return _box(call, [block for block in blocks if block])


def _result(measured: Mapping[str, Metrics]) -> tuple[str, Metrics | None]:
    return next(iter(measured.items()), ("", None))


def _headline(part: str, figures: Metrics | None) -> str:
    if figures is None:
        return "Training has not ended; <code>fit</code> with the same arguments goes on with it."
    accuracy = figures.accuracy
    if figures.mean_average_precision is not None:
        low, high = figures.extra["intervals"]["mean_average_precision"]
        return (
            f'<span style="font-size: 1.6em; font-weight: 600">{figures.mean_average_precision:.3f}</span> '
            f"{part} mean average precision (95&nbsp;%: {low:.3f} to {high:.3f}, {figures.images:,} images); "
            f"micro F1 {figures.micro_f1:.3f}, exact match {_percent(accuracy.value)}"
        )
    return (
        f'<span style="font-size: 1.6em; font-weight: 600">{_percent(accuracy.value)}</span> {part} accuracy '
        f"(95&nbsp;%: {_percent(accuracy.low)} to {_percent(accuracy.high)}, {figures.images:,} images); "
        f"balanced {_percent(figures.balanced_accuracy)}, macro F1 {figures.macro_f1:.3f}"
    )


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _chips(classes: Sequence[str]) -> str:
    more = len(classes) - CLASSES_SHOWN
    chips = [f'<span style="{CHIP}">{escape(printable(name))}</span>' for name in classes[:CLASSES_SHOWN]]
    rest = f" and {more:,} more" if more > 0 else ""
    return f"{counted(len(classes), 'class', 'classes')}: {' '.join(chips)}{rest}"


def _to_mind(part: str, record: RunRecord) -> list[str]:
    """Diagnosis and promises that did not hold, in words."""
    told = [f"{found['message']} {found['remedy']}".strip() for found in record.diagnosis or ()]
    if part == "validation":
        told.insert(0, "There is no test part: validation images chose the weights, so this is optimistic.")
    for number, promise in record.promises.items():
        if promise["kept"] is False:
            told.append(f"Broken: promise {number}: {promise['evidence']}")
        elif promise.get("state") == NOT_CHECKED:
            told.append(f"Promise {number} was not checked: {promise['evidence']}")
    return told


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(printable(line))}</li>" for line in lines)
    flags = FLAGS if " --" in items else ""
    return f'<ul style="margin: 0; padding-left: 1.2em">{items}</ul>{flags}' if items else ""


def _next() -> str:
    steps = " &middot; ".join(f"{what}: <code>{escape(code)}</code>" for what, code in NEXT)
    return f"Next: {steps}"


def _box(call: str, blocks: Sequence[str]) -> str:
    body = "".join(f'<div style="margin-top: 0.5em">{block}</div>' for block in blocks)
    return f'<div style="{BOX}"><code>{escape(printable(call))}</code>{body}</div>'
