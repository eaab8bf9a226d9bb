"""What the curves and figures of a run say, in words, with the remedy: the gap is watched for the user.

Every threshold is a constant with its reason. Findings come most pressing first; "fine" stands alone.
"""

from __future__ import annotations

from collections.abc import Callable

from saccade.evaluation.curves import (
    fine_tuning_did_not_help,
    images_too_small,
    overfitting,
    stopped_too_early,
    turned,
    underfitting,
)
from saccade.evaluation.data_diagnosis import (
    inseparable_pairs,
    not_separable,
    shifted_parts,
    shortcut,
    too_few_to_tell,
)
from saccade.evaluation.intervals import mean_interval, wilson
from saccade.evaluation.label_diagnosis import LABEL_RULES, fine
from saccade.evaluation.rate_diagnosis import diverged, plateau, too_high_a_rate, too_low_a_rate
from saccade.evaluation.remedies import (
    FEW_IMAGES,
    FEWEST_OF_A_CLASS,
    SOME_IMAGES,
    UNEVEN,
    Evidence,
    against_baseline,
    baseline,
    for_rare_classes,
    has_curves,
    keep_apart,
    one_of,
    percent,
    what_next,
)
from saccade.records import Finding, Metrics
from saccade.terminal import counted

# Confidence and accuracy that differ by more than this mislead whoever reads a probability.
CALIBRATION_GAP = 0.05
# Balanced accuracy this near to guessing has learnt nothing, whatever the accuracy says.
NO_SKILL = 0.05


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """Findings in words, most pressing first; a single finding of kind "fine" where nothing is wrong."""
    several = evidence.judged is not None and evidence.judged.multi_label
    rules = LABEL_RULES if several else RULES
    found = [finding for rule in rules for finding in [rule(evidence)] if finding is not None]
    if not any(finding.severity in ("warning", "error") for finding in found):
        found.insert(0, fine(evidence) if several else _fine(evidence))
    rank = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(found, key=lambda finding: rank[finding.severity]))


def worse_than_baseline(evidence: Evidence) -> Finding | None:
    """No better, or not shown to be better, than always predicting the commonest class."""
    figures = evidence.judged
    if figures is None:
        return None
    label, share = baseline(figures)
    if figures.accuracy.low > share:
        return None
    worse = figures.accuracy.value <= share
    images = counted(figures.images, "image")
    verdict = "is no better than" if worse else f"is not shown by {images} to beat"
    message = (
        f"An accuracy of {percent(figures.accuracy.value)} {verdict} always predicting {label!r} "
        f"({percent(share)})."
    )
    learnt = _learnt_all_the_same(evidence, figures)
    return Finding(
        "worse_than_baseline",
        "error" if worse and not learnt else "warning",
        f"{message} {learnt}".rstrip(),
        _by_balanced_accuracy(evidence, figures)
        if learnt
        else "Look at the images with `saccade augment` and the audit: can a person tell the classes apart?"
        + against_baseline(evidence),
        figure={"accuracy": figures.accuracy.value, "baseline": share},
    )


def _learnt_all_the_same(evidence: Evidence, figures: Metrics) -> str:
    """What uneven classes hide: rare ones are found, at the cost of the commonest; "" where none are."""
    supports = [row.support for row in figures.per_class if row.support]
    chance, fair = 1 / len(supports), mean_interval(figures.balanced_accuracy, supports)
    if max(supports) < UNEVEN * min(supports) or fair.value <= chance + NO_SKILL:
        return ""
    sure = "" if fair.low > chance else ", though so few images do not show it"
    return (
        f"But that says little where classes are uneven: balanced accuracy is {percent(fair.value)}, and "
        f"guessing has {percent(chance)}{sure}."
    )


def _by_balanced_accuracy(evidence: Evidence, figures: Metrics) -> str:
    largest = max(row.support for row in figures.per_class)
    rare = [row.label for row in figures.per_class if 0 < UNEVEN * row.support <= largest]
    named = ", ".join(map(repr, rare[:5])) + (f" and {len(rare) - 5} more" if len(rare) > 5 else "")
    weights = for_rare_classes(evidence, rare)
    return (
        f"Judge by balanced accuracy and macro F1. Add images of {named}{', or ' * bool(weights)}{weights}."
    )


def hidden_series(evidence: Evidence) -> Finding | None:
    """Images in series that nobody named: what looks like overfitting is the frames of one scene."""
    found = evidence.series
    if not found:
        return None
    flag = f"--group-pattern '{found['pattern']}'" if found["pattern"] else "--group or --group-pattern"
    series = f"about {found['count']:,} series of {counted(found['images'], 'image')}"
    figures = (
        f"Held-out training images have an accuracy of {percent(found['held_out'])}, with whole series held "
        f"out {percent(found['apart'])}, validation images {percent(found['validation'])}: the others of a "
        "series give its images away."
        if found["apart"]
        else "Where one of them stands in two parts, the figures promise too much."
    )
    return Finding(
        "hidden_series",
        "warning",
        f"Your images come in series ({series}). {figures}",
        f"Name them with {flag}. Images of other scenes help more than further ones of these.",
        figure={"series": found["count"], "images": found["images"]},
    )


def never_predicted(evidence: Evidence) -> Finding | None:
    """Classes that are there and that the model never predicts."""
    figures = evidence.judged
    if figures is None:
        return None
    predicted = [sum(column) for column in zip(*figures.confusion, strict=True)]
    rows = zip(figures.per_class, predicted, strict=True)
    missing = [row for row, answers in rows if row.support and not answers]
    if not missing:
        return None
    names = ", ".join(f"{row.label!r} ({counted(row.support, 'image')})" for row in missing[:10])
    more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    few = all(row.support < FEWEST_OF_A_CLASS for row in missing)
    weights = for_rare_classes(evidence, [row.label for row in missing])
    these = "this class" if len(missing) == 1 else "each of these classes"
    steps = [*filter(None, [weights]), f"add images of {these}", f"merge {these} with what resembles it"]
    return Finding(
        "never_predicted",
        "info" if few else "warning",
        f"The model never predicts {names}{more}.",
        one_of(steps),
        figure={"classes": [row.label for row in missing]},
    )


def too_little_data(evidence: Evidence) -> Finding | None:
    """Too few images of a class to learn it from."""
    if 0 < evidence.smallest_class < FEW_IMAGES:
        smallest = min(evidence.train_counts, key=evidence.train_counts.__getitem__)
        return Finding(
            "too_little_data",
            "warning",
            f"The smallest class, {smallest!r}, has {counted(evidence.smallest_class, 'training image')}; "
            f"below {FEW_IMAGES} each one changes the model.",
            f"Collect at least {SOME_IMAGES} images of each class, most of those that look alike.",
            figure={"smallest_class": evidence.smallest_class},
        )
    return None


def optimistic_validation(evidence: Evidence) -> Finding | None:
    """Worse on the test part than the validation part promised, by more than chance explains."""
    test, validation = evidence.test, evidence.validation
    if test is None or validation is None or test.accuracy.high >= validation.accuracy.low:
        return None
    return Finding(
        "optimistic_validation",
        "warning",
        f"The test part ({percent(test.accuracy.value)}) is clearly worse than the validation part "
        f"({percent(validation.accuracy.value)}).",
        f"Believe the test part. Look for what differs between the two (another camera, day or site), and "
        f"{keep_apart(evidence)}.",
        figure={"test": test.accuracy.value, "validation": validation.accuracy.value},
    )


def weak_classes(evidence: Evidence) -> Finding | None:
    """Classes that are found clearly less often than the average image, with what they are taken for."""
    figures = evidence.judged
    if figures is None:
        return None
    told = {label for pair in inseparable_pairs(figures) for label in pair[:2]}
    weak = [
        (row, _taken_for(figures, i))
        for i, row in enumerate(figures.per_class)
        if row.support >= FEWEST_OF_A_CLASS
        and row.label not in told
        and wilson(round(row.recall * row.support), row.support).high < figures.accuracy.low
    ]
    if not weak:
        return None
    weak.sort(key=lambda entry: entry[0].recall)
    words = ", ".join(
        f"{row.label!r} ({percent(row.recall)} of {row.support}, most often taken for {o!r})"
        for row, o in weak[:5]
    )
    return Finding(
        "weak_classes",
        "info",
        f"Found clearly less often than the others: {words}.",
        "More images of these, taken as differently as those of the others, help more than anything else; "
        "look at their mistakes in the report for wrong labels first.",
        figure={"classes": [row.label for row, _ in weak]},
    )


def misleading_confidence(evidence: Evidence) -> Finding | None:
    """On average more, or less, confident than right, by more than chance explains."""
    figures = evidence.judged
    if figures is None or "mean_confidence" not in figures.extra:
        return None
    confidence, accuracy = float(figures.extra["mean_confidence"]), figures.accuracy
    if abs(confidence - accuracy.value) < CALIBRATION_GAP or accuracy.low <= confidence <= accuracy.high:
        return None
    word = "more" if confidence > accuracy.value else "less"
    return Finding(
        "misleading_confidence",
        "info",
        f"The model is {word} confident ({percent(confidence)} on average) than right "
        f"({percent(accuracy.value)}).",
        "Do not read its confidences as probabilities"
        + ("." if evidence.recipe.evaluate.calibrate else "; set evaluate.calibrate = true."),
        figure={"confidence": confidence, "accuracy": accuracy.value},
    )


# One line adds a rule.
RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    diverged,
    too_high_a_rate,
    too_low_a_rate,
    images_too_small,
    worse_than_baseline,
    hidden_series,
    shifted_parts,
    shortcut,
    overfitting,
    underfitting,
    plateau,
    stopped_too_early,
    optimistic_validation,
    never_predicted,
    not_separable,
    too_little_data,
    too_few_to_tell,
    turned,
    fine_tuning_did_not_help,
    weak_classes,
    misleading_confidence,
)


def _fine(evidence: Evidence) -> Finding:
    figures = evidence.judged
    curves = "the curves show no harmful overfitting, no underfitting and no trouble with the learning rate"
    trained = has_curves(evidence)
    if figures is None:
        return Finding(
            "fine", "info", f"Fine: {curves}." if trained else "Fine.", "Nothing needs to be done."
        )
    part = "test" if evidence.test else "validation"
    right = f"Fine: {percent(figures.accuracy.value)} of the {figures.images} {part} images are right"
    return Finding(
        "fine",
        "info",
        f"{right}, and {curves}." if trained else f"{right}.",
        what_next(evidence, figures),
        figure={"accuracy": figures.accuracy.value},
    )


def _taken_for(figures: Metrics, row: int) -> str:
    others = [(n, figures.classes[i]) for i, n in enumerate(figures.confusion[row]) if i != row]
    return max(others, key=lambda entry: entry[0])[1]
