"""What the figures of a run say whose images may have several labels: accuracy of whole sets says little.

Curves are read by the same rules as elsewhere; how much was learnt is the mean average precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saccade.evaluation.curves import (
    LEAST_UNSEEN,
    OVERFIT_GAP,
    fine_tuning_did_not_help,
    images_too_small,
    stopped_too_early,
    turned,
)
from saccade.evaluation.rate_diagnosis import (
    UNDERFIT_SKILL,
    diverged,
    plateau,
    too_high_a_rate,
    too_low_a_rate,
)
from saccade.evaluation.remedies import (
    FEW_IMAGES,
    FEWEST_OF_A_CLASS,
    SOME_IMAGES,
    WIDE_HALF_WIDTH,
    Evidence,
    against_overfitting,
    against_underfitting,
    for_rare_classes,
    has_curves,
    keep_apart,
    one_of,
    what_next,
)
from saccade.records import Finding, Metrics
from saccade.terminal import counted

NAMED = 5


@dataclass(frozen=True, slots=True)
class Gap:
    """Mean average precision on training images and on others; `wide` where chance does not explain it."""

    train: float
    others: float
    images: int
    wide: bool


def precision_gap(train: Metrics | None, others: Sequence[Metrics]) -> Gap | None:
    """How much better training images are ranked than others; None where one of them was not measured."""
    images = sum(figures.images for figures in others)
    if train is None or not images:
        return None
    value = sum((figures.mean_average_precision or 0.0) * figures.images for figures in others) / images
    high = max(bounds(figures)[1] for figures in others)
    reached = train.mean_average_precision or 0.0
    wide = reached - value >= OVERFIT_GAP and reached > high and images >= LEAST_UNSEEN
    return Gap(reached, value, images, wide)


def bounds(figures: Metrics) -> tuple[float, float]:
    """The 95 % interval of the mean average precision."""
    low, high = figures.extra["intervals"]["mean_average_precision"]
    return float(low), float(high)


def _judged(evidence: Evidence) -> Metrics:
    assert evidence.judged is not None, "rules for labels are asked where there are figures"
    return evidence.judged


def no_better_than_chance(evidence: Evidence) -> Finding | None:
    """Ranks images no better, or not shown to be better, than at random."""
    figures = _judged(evidence)
    chance, value = float(figures.extra["prevalence"]), figures.mean_average_precision or 0.0
    if bounds(figures)[0] > chance:
        return None
    return Finding(
        "worse_than_baseline",
        "error" if value <= chance else "warning",
        f"A mean average precision of {value:.3f} is not shown by {counted(figures.images, 'image')} to beat "
        f"a random order ({chance:.3f}).",
        "Look at the images with `saccade augment` and the audit: can a person see the labels?",
        figure={"mean_average_precision": value, "chance": chance},
    )


def overfitting(evidence: Evidence) -> Finding | None:
    """Training images are ranked much better than others."""
    others = [figures for figures in (evidence.validation, evidence.test) if figures]
    gap = precision_gap(evidence.train, others)
    if gap is None or not gap.wide:
        return None
    few = 0 < evidence.smallest_class < SOME_IMAGES
    return Finding(
        "overfitting",
        "warning",
        f"Overfitting: mean average precision is {gap.train:.3f} on training images, but only "
        f"{gap.others:.3f} on {gap.images:,} others. The model has memorised its training images.",
        against_overfitting(evidence, more_data_first=few),
        figure={"train": gap.train, "others": gap.others},
    )


def underfitting(evidence: Evidence) -> Finding | None:
    """Not even the training images are ranked well."""
    train = evidence.train.mean_average_precision if evidence.train else None
    if train is None or train >= UNDERFIT_SKILL or not evidence.history:
        return None
    if any(
        rule(evidence) for rule in (diverged, too_high_a_rate, too_low_a_rate, plateau, stopped_too_early)
    ):
        return None  # each explains low figures by itself
    return Finding(
        "underfitting",
        "warning",
        f"Underfitting: mean average precision is {train:.3f} on training images.",
        against_underfitting(evidence),
        figure={"train": train},
    )


def never_named(evidence: Evidence) -> Finding | None:
    """Labels that images have and that the model never names."""
    figures = _judged(evidence)
    names = set(figures.extra["never_predicted"])
    missing = [row for row in figures.per_class if row.label in names]
    if not missing:
        return None
    words = ", ".join(f"{row.label!r} ({counted(row.support, 'image')})" for row in missing[:NAMED])
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    weights = for_rare_classes(evidence, [row.label for row in missing])
    few = all(row.support < FEWEST_OF_A_CLASS for row in missing)
    lower = "lower --evaluate.precision" if evidence.recipe.evaluate.precision else ""
    steps = [*filter(None, [lower, weights]), "add images with these labels"]
    return Finding(
        "never_predicted",
        "info" if few else "warning",
        f"The model never names {words}{more}.",
        one_of(steps),
        figure={"classes": [row.label for row in missing]},
    )


def too_little_data(evidence: Evidence) -> Finding | None:
    """Too few images with a label to learn it."""
    if 0 < evidence.smallest_class < FEW_IMAGES:
        smallest = min(evidence.train_counts, key=evidence.train_counts.__getitem__)
        return Finding(
            "too_little_data",
            "warning",
            f"The rarest label, {smallest!r}, has {counted(evidence.smallest_class, 'training image')}; "
            f"below {FEW_IMAGES} each one changes the model.",
            f"Collect at least {SOME_IMAGES} images with each label.",
            figure={"smallest_class": evidence.smallest_class},
        )
    return None


def too_few_to_tell(evidence: Evidence) -> Finding | None:
    """Too few images to say how good the model is."""
    figures = _judged(evidence)
    low, high = bounds(figures)
    if (high - low) / 2 <= WIDE_HALF_WIDTH:
        return None
    part = "test" if evidence.test else "validation"
    return Finding(
        "too_few_to_tell",
        "warning",
        f"{counted(figures.images, f'{part} image')} tell little: the mean average precision lies between "
        f"{low:.3f} and {high:.3f}.",
        "Four times as many images would halve that range.",
        figure={"images": figures.images, "low": low, "high": high},
    )


def optimistic_validation(evidence: Evidence) -> Finding | None:
    """Worse on the test part than the validation part promised, by more than chance explains."""
    test, validation = evidence.test, evidence.validation
    if test is None or validation is None or bounds(test)[1] >= bounds(validation)[0]:
        return None
    return Finding(
        "optimistic_validation",
        "warning",
        f"The test part (mean average precision {test.mean_average_precision:.3f}) is clearly worse than the "
        f"validation part ({validation.mean_average_precision:.3f}).",
        "Believe the test part. Look for what differs between the two (another camera, day or site), and "
        f"{keep_apart(evidence)}.",
        figure={"test": test.mean_average_precision, "validation": validation.mean_average_precision},
    )


def weak_labels(evidence: Evidence) -> Finding | None:
    """Labels that are ranked clearly worse than the others."""
    figures = _judged(evidence)
    intervals = figures.extra["intervals"]["average_precision"]
    weak = [
        row
        for row, interval in zip(figures.per_class, intervals, strict=True)
        if row.support >= FEWEST_OF_A_CLASS and interval and interval[1] < bounds(figures)[0]
    ]
    if not weak:
        return None
    weak.sort(key=lambda row: row.average_precision or 0.0)
    words = ", ".join(
        f"{row.label!r} (average precision {row.average_precision:.3f})" for row in weak[:NAMED]
    )
    return Finding(
        "weak_classes",
        "info",
        f"Recognised clearly less well than the others: {words}.",
        "More images with these labels help more than anything else; look at their mistakes in the report "
        "for wrong or missing labels first.",
        figure={"classes": [row.label for row in weak]},
    )


# One line adds a rule.
LABEL_RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    diverged,
    too_high_a_rate,
    too_low_a_rate,
    images_too_small,
    no_better_than_chance,
    overfitting,
    underfitting,
    stopped_too_early,
    plateau,
    optimistic_validation,
    never_named,
    too_little_data,
    too_few_to_tell,
    turned,
    fine_tuning_did_not_help,
    weak_labels,
)


def fine(evidence: Evidence) -> Finding:
    """What is said where no rule has anything to say."""
    figures = _judged(evidence)
    part, (low, high) = "test" if evidence.test else "validation", bounds(figures)
    curves = ", and the curves show no trouble" if has_curves(evidence) else ""
    return Finding(
        "fine",
        "info",
        f"Fine: mean average precision is {figures.mean_average_precision:.3f} ({low:.3f} to {high:.3f}) on "
        f"{figures.images:,} {part} images{curves}.",
        what_next(evidence, figures),
        figure={"mean_average_precision": figures.mean_average_precision},
    )
