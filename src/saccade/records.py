"""What flows through saccade: plain frozen values that can be printed, saved and tested."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.label_sets import join_labels, split_labels
from saccade.terminal import printable

PARTS = ("train", "validation", "test")

CLASSES_SHOWN = 30  # where figures are shown as text
PER_CLASS = ("class", "precision", "recall", "F1", "support")

Status = Literal["used", "set_aside"]
Severity = Literal["info", "warning", "error"]
Confidence = Literal["certain", "likely", "look"]


class Storage(Protocol):
    """Where the bytes of a data set's images lie. Must survive pickling between worker processes."""

    def read(self, path: str) -> bytes:
        """The file's bytes; raises ImageError when it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: where it is, what it shows, and whether it is used.

    `path` is relative to the data's root, with forward slashes. `part` is "" until a split is made.
    `sha256` is of the file's bytes, `pixel_sha256` of the upright RGB pixels with their shape.
    `width`, `height` in pixels, upright. `mode` is Pillow's (before conversion to RGB).
    `cluster` is the same for images that a split keeps together (group, copies, near-duplicates), "" for one
    that stands alone or was not split. `several`: `label` is a set of names (`saccade.label_sets`), not one.

    >>> ImageRecord("tulip/a.jpg", "tulip", part="train").set_aside("unreadable").used
    False
    >>> ImageRecord("a.jpg", "cat,dog", several=True).labels
    ('cat', 'dog')
    """

    path: str
    label: str
    part: str = ""
    group: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    status: Status = "used"
    note: str = ""
    pixel_sha256: str = field(default="", compare=False)
    cluster: str = ""
    several: bool = field(default=False, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of what it shows: one, or where there may be several, any number."""
        return split_labels(self.label) if self.several else (self.label,)

    @property
    def unit(self) -> str:
        """The same for images of which none may judge what another has taught."""
        return f"cluster {self.cluster}" if self.cluster else self.group or self.sha256 or self.path

    @property
    def used(self) -> bool:
        return self.status == "used"

    def set_aside(self, note: str) -> ImageRecord:
        """The same record, left out of every part, with the reason."""
        return replace(self, status="set_aside", part="", note=note)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images, their labels and where their bytes lie. Records stand in a stable order (by path).

    `classes` is the order of every probability column and confusion-matrix row from here on.
    `given_parts` are the parts the user's own split names; empty for unsplit data.
    `ignored` counts what was passed over by rule (hidden files, Thumbs.db, ...), by reason;
    `listed` names what was seen but is no part of the data (files at the root, other folders), with why;
    `lost` are those lines of it that may have been meant as data. `findings` are the source's own.
    `multi_label`: an image may have several of the classes, or none (`ImageRecord.several` of each record).
    `stamps`: of objects elsewhere, by path, what is another once an object is (size, tag, time); the state of
    files is asked for when it is wanted.
    """

    root: Path
    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    storage: Storage
    given_parts: tuple[str, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    empty_classes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    multi_label: bool = False
    stamps: Mapping[str, tuple[int, int, int]] = field(default_factory=dict, repr=False, compare=False)

    def used(self, part: str | None = None) -> tuple[ImageRecord, ...]:
        """Records in use, of one part where named."""
        return tuple(r for r in self.records if r.used and (part is None or r.part == part))

    def counts(self, part: str | None = None) -> dict[str, int]:
        """Images in use per class, in class order; one of several classes counts in each."""
        tally = Counter(label for record in self.used(part) for label in record.labels)
        return {label: tally[label] for label in self.classes}

    def fingerprint(self) -> str:
        """SHA-256 over path, label, part and content of every image in use: equal data, equal fingerprint."""
        digest = hashlib.sha256()
        for record in sorted(self.used(), key=lambda record: record.path):
            line = "\0".join((record.path, record.label, record.part, record.sha256))
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def with_records(self, records: Iterable[ImageRecord]) -> Dataset:
        return replace(self, records=tuple(records))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the audit found: what, how sure, which files, what to do.

    `kind` is a stable name ("unreadable", "identical_files", "label_conflict", ...).
    `paths` are relative to the root; for pair findings each two belong together when `pairs` is set.
    `figure` holds the numbers behind the words.
    """

    kind: str
    severity: Severity
    message: str
    remedy: str
    paths: tuple[str, ...] = ()
    confidence: Confidence = "certain"
    figure: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that show the same thing, as verified by the search for near-duplicates."""

    first: str
    second: str
    band: Confidence
    score: float
    how: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """All findings over a data set, and the near-duplicate pairs they rest on.

    `dataset` is the audited data: what must be set aside is set aside there.
    `clusters` gives each used path its cluster of (near-)duplicates; singletons are left out.
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    pairs: tuple[Pair, ...] = ()
    clusters: Mapping[str, int] = field(default_factory=dict)

    @property
    def worst(self) -> Severity:
        severities: tuple[Severity, ...] = ("error", "warning")
        for severity in severities:
            if any(finding.severity == severity for finding in self.findings):
                return severity
        return "info"


@dataclass(frozen=True, slots=True)
class Split:
    """A data set whose used records all have a part, with what had to be said about it.

    `reasons` name each place where a share could not be met. `crossing` are pairs that stand in two
    parts (only possible in a split that the user made). `moved` holds (path, earlier part, part) of images
    that had to leave the part they had before. `folds` gives each path outside of the test part its fold,
    from 1, where cross-validation is wanted. `promise_kept` is promise 1.
    """

    dataset: Dataset
    reasons: tuple[str, ...] = ()
    crossing: tuple[Pair, ...] = ()
    crossing_groups: tuple[str, ...] = ()
    made_by_user: bool = False
    moved: tuple[tuple[str, str, str], ...] = ()
    verified: Mapping[str, Any] = field(default_factory=dict)
    folds: Mapping[str, int] = field(default_factory=dict)

    @property
    def promise_kept(self) -> bool:
        return not self.crossing and not self.crossing_groups


@dataclass(frozen=True, slots=True)
class Predictions:
    """Probabilities of a model on images. `probabilities` is (images, classes), rows sum to 1.

    `labels` hold the true class names, "" where unknown; columns follow `classes`. Where an image may have
    several labels, `named` (images, classes) says which of them the model names, probabilities stand each for
    itself, and each of `labels` is a set of names (`saccade.label_sets`), "" the empty one.

    >>> predictions = Predictions(("a.jpg",), ("rose",), ("rose", "tulip"), np.array([[0.2, 0.8]]))
    >>> predictions.predicted, predictions.confidence.tolist()
    (('tulip',), [0.8])
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    named: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        expected = (len(self.paths), len(self.classes))
        assert self.probabilities.shape == expected, f"{self.probabilities.shape} is not {expected}"
        assert self.named is None or self.named.shape == expected, f"{self.named.shape} is not {expected}"
        assert len(self.labels) == len(self.paths), "one label an image, '' where unknown"

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def predicted(self) -> tuple[str, ...]:
        """Name of the most probable class of each image; the first one wins a tie. Else the set of names."""
        if self.named is not None:
            return tuple(join_labels(self.classes[i] for i in np.flatnonzero(row)) for row in self.named)
        return tuple(self.classes[i] for i in self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(images,) probability of the predicted class."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float64)

    @property
    def wrong(self) -> tuple[int, ...]:
        """Rows whose label is known and not the answer, the most confident first.

        With several labels, those with any label missed or wrongly named, the most of them first.
        """
        if self.named is not None:
            mistakes = (self.named != self.truth).sum(axis=1)
            order = sorted(np.flatnonzero(mistakes), key=lambda row: (-mistakes[row], self.paths[row]))
            return tuple(int(row) for row in order)
        predicted, confidence = self.predicted, self.confidence
        rows = [row for row, label in enumerate(self.labels) if label and label != predicted[row]]
        return tuple(sorted(rows, key=lambda row: (-confidence[row], self.paths[row])))

    @property
    def label_indices(self) -> NDArray[np.int64]:
        """(images,) column of each true label; every label must be known."""
        column = {label: i for i, label in enumerate(self.classes)}
        return np.array([column[label] for label in self.labels], dtype=np.int64)

    @property
    def truth(self) -> NDArray[np.bool_]:
        """(images, classes) the labels of images that may have several; every name must be a class."""
        column = {label: i for i, label in enumerate(self.classes)}
        found = np.zeros((len(self.labels), len(self.classes)), dtype=np.bool_)
        for row, text in enumerate(self.labels):
            found[row, [column[name] for name in split_labels(text)]] = True
        return found


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval.

    >>> str(Interval(0.95, 0.863, 0.983))
    '95.0 % (86.3 to 98.3)'
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Figures of one class; `support` is the number of its images.

    `average_precision` and `auroc` are those of its probability. Both are None without an image of the class;
    AUROC also without one of another class, where an image may have several labels, and in older files.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    average_precision: float | None = None
    auroc: float | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What `metrics/*.json` holds. Rows of `confusion` are true labels, columns predicted ones.

    Where an image may have several labels, there are `mean_average_precision` and `micro_f1`, `accuracy` is
    that of whole sets of labels (exact match), and `top_k` and `confusion` are empty: they have no meaning.
    """

    images: int
    accuracy: Interval
    balanced_accuracy: float
    macro_f1: float
    top_k: Mapping[int, float]
    per_class: tuple[ClassMetrics, ...]
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    log_loss: float
    ece: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    mean_average_precision: float | None = None
    micro_f1: float | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.mean_average_precision is not None

    def __repr__(self) -> str:
        figures = [f"{name:<18} {value}" for name, value in self._figures().items()]
        name_columns = max([len("class"), *(len(row[0]) for row in self._rows())])
        table = [
            f"{name:<{name_columns}}  " + "  ".join(f"{cell:>9}" for cell in cells)
            for name, *cells in [PER_CLASS, *self._rows()]
        ]
        return "\n".join([*figures, "", *table, *self._more()])

    def _repr_html_(self) -> str:
        figures = "".join(
            f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self._figures().items()
        )
        head = "".join(f"<th>{name}</th>" for name in PER_CLASS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows()
        )
        more = "".join(f"<div>{line}</div>" for line in self._more())
        return f"<table>{figures}</table><table><tr>{head}</tr>{rows}</table>{more}"

    def _figures(self) -> dict[str, str]:
        if self.mean_average_precision is not None:
            return {
                "mean avg. precision": f"{self.mean_average_precision:.3f}, {self.images:,} images",
                "micro F1": f"{self.micro_f1:.3f}",
                "macro F1": f"{self.macro_f1:.3f}",
                "exact match": str(self.accuracy),
                "log loss": f"{self.log_loss:.3f}",
            }
        return {
            "accuracy": f"{self.accuracy}, {self.images:,} images",
            "balanced accuracy": f"{100 * self.balanced_accuracy:.1f} %",
            "macro F1": f"{self.macro_f1:.3f}",
            "log loss": f"{self.log_loss:.3f}",
        }

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                printable(row.label),
                f"{row.precision:.3f}",
                f"{row.recall:.3f}",
                f"{row.f1:.3f}",
                f"{row.support:,}",
            )
            for row in self.per_class[:CLASSES_SHOWN]
        ]

    def _more(self) -> list[str]:
        more = len(self.per_class) - CLASSES_SHOWN
        return [f"and {more:,} more classes in per_class"] if more > 0 else []


# Validation figures that `train.monitor` may name -> whether higher is better (training/monitors.py).
HIGHER_IS_BETTER: dict[str, bool] = {
    "loss": False,
    "calibrated_loss": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "top5": True,
    "mean_average_precision": True,
}


def monitor_in_words(name: str) -> str:
    """A value of `train.monitor` as prose has it.

    >>> monitor_in_words("calibrated_loss"), monitor_in_words("macro_f1")
    ('calibrated loss', 'macro F1')
    """
    return name.replace("_", " ").replace("f1", "F1")


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One line of `history.jsonl`. `seconds` count from the moment the command was started.

    `monitored` is the validation figure that `train.monitor` names, where that is not the loss.
    """

    phase: str
    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    monitor: str = ""
    monitored: float | None = None

    @property
    def score(self) -> float:
        """What is watched, lower is better: the validation loss unless `monitor` names another figure."""
        if self.monitored is None:
            return self.validation_loss
        return -self.monitored if HIGHER_IS_BETTER[self.monitor] else self.monitored

    @property
    def watched_loss(self) -> float:
        """The calibrated loss of validation where that is watched, else the plain one."""
        calibrated = self.monitored if self.monitor == "calibrated_loss" else None
        return self.validation_loss if calibrated is None else calibrated

    @property
    def loss_in_words(self) -> str:
        """What to call `watched_loss`."""
        return "validation loss" if self.monitor != "calibrated_loss" else "calibrated validation loss"

    def as_json(self) -> dict[str, Any]:
        """Its fields; those of `train.monitor` only where it names another figure than the loss."""
        values = asdict(self)
        return values if self.monitor else {k: v for k, v in values.items() if not k.startswith("monitor")}


@dataclass(frozen=True, slots=True)
class Certificate:
    """How the exported file's answers compare with the trained model's on real images."""

    kind: Literal["float", "fp16", "int8"]
    images: int
    top1_agreement: float
    max_probability_difference: float
    accuracy_change: float
    tolerance: float
    passed: bool
    extra: Mapping[str, Any] = field(default_factory=dict)
