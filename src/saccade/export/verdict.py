"""What the file said beside what the trained model said: figures, intervals, and whether that will do.

A float file repeats the trained model, so one probability that differs is too much. A reduced file (fp16,
int8) is another model. It has to be as accurate, overall and in each class, as far as the images can show it,
and has to say the same of nearly all. An fp16 file whose probabilities hardly change needs no such proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from saccade.errors import ModelError
from saccade.evaluation.intervals import paired_change, wilson
from saccade.export.runtimes import Probabilities
from saccade.records import Certificate, Interval, Predictions

Kind = Literal["float", "fp16", "int8"]

DROP_MARGIN = 0.04  # by so much the 95 % bound of the fall may exceed `max_drop`: 73 images without a loss
MIN_AGREEMENT = 0.9
MAX_DIFFERENCE = 0.5  # of a probability: beyond it a confident prediction changed
UNFAMILIARITY_DIFFERENCE = 1e-3  # of a score, as a share of it, between two runtimes
FP16_DIFFERENCE = 0.01  # of a probability: an fp16 file within that repeats the trained model
TOO_FEW = "too few images to certify"
ROUNDING = 1e-12  # a drop is one of whole images, not of the last bit


@dataclass(frozen=True, eq=False)
class Compared:
    """One part: what the trained model said and what the file says, (images, classes) each.

    `limits` (classes,) are the thresholds from which on labels are named, where an image may have several.
    `unfamiliarity_difference` is the largest of a score from the first runtime's, as a share of it; None for
    that one.
    """

    part: str
    predictions: Predictions
    rows: NDArray[np.int64]
    answers: Probabilities
    unreadable: tuple[str, ...] = ()
    batch_difference: float = 0.0
    limits: NDArray[np.float64] | None = None
    unfamiliarity_difference: float | None = None

    @property
    def expected(self) -> Probabilities:
        chosen: Probabilities = self.predictions.probabilities[self.rows]
        return chosen

    @property
    def differences(self) -> NDArray[np.float64]:
        """(images,) largest difference of a probability; 1 where the file's answer is not a number."""
        gaps = np.nan_to_num(np.abs(self.answers - self.expected), nan=1.0)
        largest: NDArray[np.float64] = gaps.max(axis=1, initial=0.0)
        return largest

    @property
    def labelled(self) -> bool:
        """Whether the true class of any image is known; of several labels, "" is the empty set."""
        several = self.limits is not None and len(self.rows) > 0
        return several or any(self.predictions.labels[row] for row in self.rows)

    def changes(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """(images,) where the answer changed, and by how much the trained model preferred its own."""
        expected, answered = self.expected, self.answers
        if self.limits is None:
            rows, first, other = np.arange(len(expected)), expected.argmax(axis=1), answered.argmax(axis=1)
            return first != other, expected[rows, first] - expected[rows, other]
        other_label = (expected >= self.limits) != (answered >= self.limits)
        clear = np.where(other_label, np.abs(expected - self.limits), 0.0)
        return other_label.any(axis=1), clear.max(axis=1, initial=0.0)

    def decisions(self, probabilities: Probabilities) -> dict[str, NDArray[np.bool_]]:
        """Of the labelled images, whether each is answered rightly: "" of all, and of those of each class.

        Of several labels: all of them, and for the images of a label, that one.
        """
        if self.limits is None:
            right = self.right(probabilities)
            labels = np.array([label for row in self.rows if (label := self.predictions.labels[row])])
            known = (label for label in self.predictions.classes if label in labels)
            return {"": right, **{label: right[labels == label] for label in known}}
        truth = self.predictions.truth[self.rows]
        right = (probabilities >= self.limits) == truth
        columns = enumerate(self.predictions.classes)
        of_each = {name: right[truth[:, c], c] for c, name in columns if truth[:, c].any()}
        return {"": right.all(axis=1), **of_each}

    def right(self, probabilities: Probabilities) -> NDArray[np.bool_]:
        """(labelled images,) whether the first class is the true one."""
        return np.array(
            [
                self.predictions.classes[column] == self.predictions.labels[row]
                for row, column in zip(self.rows, probabilities.argmax(axis=1), strict=True)
                if self.predictions.labels[row]
            ],
            dtype=bool,
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """`changes` counts images whose first class changed; `largest_tie` is by how much the trained model
    preferred the class that the file did not, at most.
    """

    images: int
    largest_difference: float
    worst_image: str
    changes: int
    largest_tie: float

    @property
    def share(self) -> float:
        return 1 - self.changes / self.images


@dataclass(frozen=True, slots=True)
class AccuracyChange:
    """On the labelled validation images: `lost` became wrong, `gained` became right."""

    images: int
    right_before: int
    lost: int
    gained: int

    @classmethod
    def of(cls, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> AccuracyChange:
        """Of images that were right or wrong `before` and `after`."""
        return cls(
            images=len(before),
            right_before=int(before.sum()),
            lost=int((before & ~after).sum()),
            gained=int((~before & after).sum()),
        )

    @property
    def before(self) -> float:
        return self.right_before / self.images

    @property
    def after(self) -> float:
        return (self.right_before - self.lost + self.gained) / self.images

    @property
    def interval(self) -> Interval:
        return paired_change(self.lost, self.gained, self.images)

    def images_for(self, largest_fall: float) -> int:
        """How many images, answered as these, would bound the fall so far; it must be measured smaller."""
        lost, gained = self.lost / self.images, self.gained / self.images
        assert lost - gained < largest_fall, "no number of images makes a measured fall smaller"
        needed = self.images
        while -paired_change(lost * needed, gained * needed, needed).low > largest_fall + ROUNDING:
            needed += max(1, needed // 200)
        return needed


def lacks_images(problem: str) -> bool:
    """Whether a problem of a certificate, in whichever runtime, is that there are too few images to tell."""
    return re.match(rf"(in [^:]+: )?{TOO_FEW}", problem) is not None


def images_that_lack(predictions: Mapping[str, Predictions], *, kind: Kind, max_drop: float) -> str:
    """Known before an int8 file is made: that no answers on so few images could get it certified, or ""."""
    validation = predictions.get("validation")
    several = validation is not None and validation.named is not None
    images = sum(several or label != "" for label in validation.labels) if validation else 0
    same = AccuracyChange(max(images, 1), max(images, 1), lost=0, gained=0)
    limit = max_drop + DROP_MARGIN
    if kind != "int8" or -same.interval.low <= limit + ROUNDING:
        return ""
    return (
        f"{images} labelled validation images are too few to certify an int8 file: at least "
        f"{same.images_for(limit)} are needed"
    )


def _answer_problems(
    agreement: Agreement,
    change: AccuracyChange | None,
    changes: Mapping[str, AccuracyChange],
    kind: Kind,
    tolerance: float,
    max_drop: float,
) -> list[str]:
    """Raises ModelError for a reduced file without images to judge it by."""
    if kind == "float":
        return list(_float_problems(agreement, tolerance))
    if kind == "fp16" and not list(_float_problems(agreement, FP16_DIFFERENCE)):
        return []
    if change is None:
        raise ModelError(
            f"an {kind} file is judged by validation accuracy, and there are no labelled validation images",
            hint="train with a validation part",
        )
    return list(_reduced_problems(agreement, change, changes, max_drop))


def _unfamiliarity_problems(apart: Sequence[float]) -> list[str]:
    if not apart or max(apart) <= UNFAMILIARITY_DIFFERENCE:
        return []
    return [
        f"the unfamiliarity of an image differs by {max(apart):.2g} of it, allowed "
        f"{UNFAMILIARITY_DIFFERENCE:g}"
    ]


def judge(
    parts: Sequence[Compared], *, kind: Kind, tolerance: float, max_drop: float, sha256: str
) -> Certificate:
    """The verdict over all compared images of one runtime; pure arithmetic."""
    agreement, changes = _agreement(parts), _accuracy_changes(parts)
    change = changes.pop("", None)
    apart = [p.unfamiliarity_difference for p in parts if p.unfamiliarity_difference is not None]
    problems = [
        *_answer_problems(agreement, change, changes, kind, tolerance, max_drop),
        *_unfamiliarity_problems(apart),
    ]
    return Certificate(
        kind=kind,
        images=agreement.images,
        top1_agreement=agreement.share,
        max_probability_difference=agreement.largest_difference,
        accuracy_change=change.after - change.before if change else 0.0,
        tolerance=tolerance if kind == "float" else max_drop,
        passed=not problems,
        extra={
            **_several(parts),
            "sha256": sha256,
            "problems": problems,
            "top1_agreement_interval": _bounds(
                wilson(agreement.images - agreement.changes, agreement.images)
            ),
            "accuracy_change_interval": _bounds(change.interval) if change else None,
            "validation_images": change.images if change else 0,
            "validation_accuracy_before": change.before if change else None,
            "validation_accuracy_after": change.after if change else None,
            "class_accuracy_changes": {label: _told(each) for label, each in changes.items()},
            "lost": change.lost if change else 0,
            "gained": change.gained if change else 0,
            "worst_image": agreement.worst_image,
            "first_class_changes": agreement.changes,
            "largest_tie": agreement.largest_tie,
            "batch_difference": max(part.batch_difference for part in parts),
            "unfamiliarity_difference": max(apart) if apart else None,
            "images_by_part": {part.part: len(part.rows) for part in parts},
            "unreadable": [name for part in parts for name in part.unreadable],
        },
    )


def _several(parts: Sequence[Compared]) -> dict[str, str]:
    """What agreement is of, where it is not of the first class."""
    if all(part.limits is None for part in parts):
        return {}
    return {"agreement": "agreement of label sets", "same": "set of labels"}


def _bounds(interval: Interval) -> dict[str, float]:
    return {key: value for key, value in asdict(interval).items() if key != "value"}


def _told(change: AccuracyChange) -> dict[str, Any]:
    """The change of one class, for the certificate."""
    return {
        "images": change.images,
        "before": change.before,
        "after": change.after,
        **_bounds(change.interval),
    }


def _float_problems(agreement: Agreement, tolerance: float) -> Iterator[str]:
    if not agreement.largest_difference <= tolerance:
        yield (
            f"a probability differs by {agreement.largest_difference:.2g} ({agreement.worst_image}), "
            f"allowed {tolerance:g}"
        )
    if not agreement.largest_tie <= tolerance:
        yield f"the first class changed where it led by {agreement.largest_tie:.2g}, allowed {tolerance:g}"


def _reduced_problems(
    agreement: Agreement, change: AccuracyChange, classes: Mapping[str, AccuracyChange], max_drop: float
) -> Iterator[str]:
    fall, bound, limit = change.before - change.after, -change.interval.low, max_drop + DROP_MARGIN
    if fall > max_drop + ROUNDING:
        yield f"validation accuracy falls by {fall:.2%}, allowed {max_drop:.2%}"
    elif bound > limit + ROUNDING:
        yield (
            f"{TOO_FEW}: {change.images} labelled validation images, {change.lost} of them "
            f"wrong now, leave a fall of up to {bound:.1%} possible (95 %), allowed {limit:.1%}; "
            f"with answers like these {change.images_for(limit)} images are needed"
        )
    for label, each in classes.items():
        if each.interval.high < -max_drop - ROUNDING:  # a class has few images: what chance can do is allowed
            yield (
                f"accuracy of the class {label} falls by {each.before - each.after:.1%} (95 %: at least "
                f"{-each.interval.high:.1%}), allowed {max_drop:.2%}"
            )
    if agreement.share < MIN_AGREEMENT - ROUNDING:
        yield f"the first class is the same for {agreement.share:.1%} of images, needed {MIN_AGREEMENT:.0%}"
    if not agreement.largest_difference <= MAX_DIFFERENCE:
        yield (
            f"a probability differs by {agreement.largest_difference:.2f} ({agreement.worst_image}), "
            f"allowed {MAX_DIFFERENCE:g}"
        )


def _agreement(parts: Sequence[Compared]) -> Agreement:
    differences = np.concatenate([part.differences for part in parts])
    changed, preferred = (
        np.concatenate(both) for both in zip(*(part.changes() for part in parts), strict=True)
    )
    paths = [part.predictions.paths[row] for part in parts for row in part.rows]
    return Agreement(
        images=len(changed),
        largest_difference=max(float(differences.max()), *(part.batch_difference for part in parts)),
        worst_image=paths[int(differences.argmax())],
        changes=int(changed.sum()),
        largest_tie=float(preferred.max()),
    )


def _accuracy_changes(parts: Sequence[Compared]) -> dict[str, AccuracyChange]:
    """Of the labelled validation images: all of them as "", then by class; nothing without any."""
    for part in parts:
        if part.part == "validation" and part.labelled:
            before, after = part.decisions(part.expected), part.decisions(part.answers)
            return {label: AccuracyChange.of(before[label], after[label]) for label in before}
    return {}
