"""Findings about the images behind the figures: parts that differ, too few to tell, pairs that nothing parts.

They rest on predictions, on what cross-validation said inside the training part, and on the audit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from saccade.evaluation.intervals import images_needed, mean_interval
from saccade.evaluation.rate_diagnosis import diverged, too_high_a_rate, too_low_a_rate
from saccade.evaluation.remedies import (
    STRONGER,
    WIDE_HALF_WIDTH,
    Evidence,
    fitted,
    percent,
    policy_of,
)
from saccade.evaluation.shortcut_use import ShortcutUse
from saccade.records import Finding, Metrics
from saccade.terminal import counted

WANTED_HALF_WIDTH = 0.03
# Validation images choose the epoch, the method and the temperature. Where chance moves their accuracy by
# more than 10 points either way, no such choice beats a draw.
CHOOSING_HALF_WIDTH = 0.10
# Held-out training images this many points above validation images, and this many standard errors of both
# accuracies: the same points that make a gap overfitting, and chance in one of a thousand runs.
SHIFT_GAP, SHIFT_ERRORS = 0.10, 3.0
# Pairs: a share of right answers between two classes whose 95 % interval ends below this is nearer to a coin
# (0.5) than to perfect. Ten images of each give a coin an interval that does; fewer do not.
NEAR_A_COIN, LEAST_OF_A_PAIR = 0.75, 10
# Both are taken for each other: an answer that always falls on one side is another matter (class shares).
BOTH_WAYS = 0.1
# The pair is the trouble, not the whole model: most of its images stay within it, and the others are found.
WITHIN_PAIR, OTHERS_FOUND = 0.7, 0.7
PAIRS_NAMED, PROPERTIES_NAMED = 3, 2


# -- how much the images can tell ------------------------------------------------------------------------


def too_few_to_tell(evidence: Evidence) -> Finding | None:
    """Too few images to say how good the model is, or to choose it by."""
    judged = evidence.judged
    if judged is None:
        return None
    if _half_width(judged) > WIDE_HALF_WIDTH:
        part = "test" if evidence.test else "validation"
        return _too_few(evidence, part, judged, WANTED_HALF_WIDTH, "")
    validation = evidence.validation
    if validation and _half_width(validation) > CHOOSING_HALF_WIDTH:
        chosen = " They choose the best epoch and the temperature, which is then left to chance."
        return _too_few(evidence, "validation", validation, WIDE_HALF_WIDTH, chosen)
    return None


def _half_width(figures: Metrics) -> float:
    return (figures.accuracy.high - figures.accuracy.low) / 2


def _too_few(evidence: Evidence, part: str, figures: Metrics, wanted: float, more: str) -> Finding:
    recipe = evidence.recipe
    no_folds = recipe.split.folds or recipe.evaluate.size == "auto"  # each fold would choose a size
    folds = "" if no_folds else ", or judge each image once (--folds 5)"
    needed = images_needed(min(max(figures.accuracy.value, 0.5), 0.95), wanted)
    return Finding(
        "too_few_to_tell",
        "warning",
        f"{counted(figures.images, f'{part} image')} {'tells' if figures.images == 1 else 'tell'} little: "
        f"the accuracy lies between {percent(figures.accuracy.low)} and {percent(figures.accuracy.high)}."
        f"{more}",
        f"Measure on more: about {needed} {part} images would tell the accuracy to "
        f"{100 * wanted:.0f} points either way{folds}.",
        figure={"part": part, "images": figures.images, "half_width": _half_width(figures), "needed": needed},
    )


# -- parts that differ -----------------------------------------------------------------------------------


def held_out_gap(evidence: Evidence) -> Mapping[str, Any]:
    """What cross-validation on training images promised and validation images did not keep; empty where kept.

    Hidden series explain it otherwise, and are named where they are found.
    """
    found = evidence.held_out
    if not found or evidence.series or evidence.validation is None:
        return {}
    held_out, validation = float(found["accuracy"]), float(found["validation"])
    images = (int(found["images"]), evidence.validation.images)
    variance = sum(p * (1 - p) / max(1, n) for p, n in zip((held_out, validation), images, strict=True))
    gap = held_out - validation
    return found if gap >= SHIFT_GAP and gap > SHIFT_ERRORS * math.sqrt(variance) else {}


def shifted_parts(evidence: Evidence) -> Finding | None:
    """Validation or test images of another kind than the training images, at the cost of accuracy."""
    promised = held_out_gap(evidence)
    different = {part: _measured(evidence, part) for part in ("validation", "test")}
    suffering = [part for part, words in different.items() if words and _suffers(evidence, part)]
    if not promised and not suffering:
        return None
    figures = []
    if promised:
        figures.append(
            f"Training images that were held out have an accuracy of {percent(promised['accuracy'])}, "
            f"validation images {percent(promised['validation'])}, and no chance explains that."
        )
    figures += [f"{part.capitalize()} images differ in {different[part]}." for part in suffering]
    parts = suffering or ["validation"]
    measured = "" if suffering else " Nothing that was measured (size, light, colour, file) tells how."
    return Finding(
        "part_shift",
        "warning",
        f"The {' and '.join(parts)} images are of another kind than the training images. "
        f"{' '.join(figures)}{measured}",
        _against_shift(evidence, parts[0], measured=bool(suffering)),
        figure={"parts": parts, "held_out": dict(promised), "differences": different},
    )


def _measured(evidence: Evidence, part: str) -> str:
    """What the audit measured of the difference, in words; "" where nothing is large."""
    found = next((each for each in evidence.differences if each["part"] == part), None)
    properties = found["properties"][:PROPERTIES_NAMED] if found else ()
    return " and ".join(f"{one['property']} ({one['part']} against {one['train']})" for one in properties)


def _suffers(evidence: Evidence, part: str) -> bool:
    """Whether a part is worse than training images, or test than validation, by more than chance explains."""
    figures = evidence.test if part == "test" else evidence.validation
    if figures is None or figures.multi_label:
        return False
    usual = evidence.train or (evidence.validation if part == "test" else None)
    if usual is None:
        return False
    gap = usual.accuracy.value - figures.accuracy.value
    return gap >= SHIFT_GAP and usual.accuracy.low > figures.accuracy.high


def _against_shift(evidence: Evidence, part: str, *, measured: bool) -> str:
    steps = [
        f"collect training images like those (same camera, place, day, preparation) as the {part} images"
    ]
    policy = policy_of(evidence.recipe)
    if policy in STRONGER and not fitted(evidence.history):
        steps.append(f"augment more, so that light and size matter less (--augment {STRONGER[policy]})")
    if policy in STRONGER and fitted(evidence.history):
        steps.append(f"fine-tune with more augmentation (--method full --augment {STRONGER[policy]})")
    named = "" if measured else ", or series of images that nobody named (--group-pattern)"
    return f"Look what the two have unlike{named}. Then {', or '.join(steps)}."


# -- two classes that nothing parts ----------------------------------------------------------------------


def _badly_trained(evidence: Evidence) -> bool:
    """Whether the rate explains already what a model gets wrong."""
    return any(rule(evidence) for rule in (diverged, too_high_a_rate, too_low_a_rate))


def not_separable(evidence: Evidence) -> Finding | None:
    """Pairs of classes between which the model does little better than a coin, while others are found."""
    figures = None if _badly_trained(evidence) else evidence.judged
    pairs = inseparable_pairs(figures) if figures else []
    if not pairs or figures is None:
        return None
    first, second, value, images = pairs[0]
    named = "; ".join(
        f"{a!r} and {b!r} ({percent(right)} of {n} images)" for a, b, right, n in pairs[:PAIRS_NAMED]
    )
    more = f" and {len(pairs) - PAIRS_NAMED} more pairs" if len(pairs) > PAIRS_NAMED else ""
    return Finding(
        "not_separable",
        "warning",
        f"The model cannot part {named}{more}: a coin would have 50 %. Other classes are found.",
        f"Look at both in the report's mistakes: where a person cannot tell them apart either, merge "
        f"{first!r} and {second!r}, or take images that show what differs{_finer(evidence)}.",
        figure={"pairs": [[a, b] for a, b, *_ in pairs], "right": value, "images": images},
    )


def inseparable_pairs(figures: Metrics) -> list[tuple[str, str, float, int]]:
    """(class, class, mean share right between the two, images) of each such pair, the worst first."""
    counts, names, found = figures.confusion, figures.classes, []
    rows = [row for row in range(len(counts)) if sum(counts[row]) >= LEAST_OF_A_PAIR]
    for place, a in enumerate(rows):
        for b in rows[place + 1 :]:
            if counts[a][b] and counts[b][a] and _near_a_coin(counts, a, b) and _others_found(figures, a, b):
                own, images = (counts[a][a], counts[b][b]), _within(counts, a, b)
                value = (own[0] / images[0] + own[1] / images[1]) / 2
                found.append((names[a], names[b], value, sum(images)))
    return sorted(found, key=lambda pair: pair[2])


Counts = tuple[tuple[int, ...], ...]


def _within(counts: Counts, a: int, b: int) -> tuple[int, int]:
    """Images of each of the two that were answered with one of the two."""
    return counts[a][a] + counts[a][b], counts[b][b] + counts[b][a]


def _near_a_coin(counts: Counts, a: int, b: int) -> bool:
    images = _within(counts, a, b)
    if min(images) < LEAST_OF_A_PAIR or sum(images) < WITHIN_PAIR * (sum(counts[a]) + sum(counts[b])):
        return False
    taken = counts[a][b] / images[0], counts[b][a] / images[1]
    right = 1 - sum(taken) / 2
    return min(taken) >= BOTH_WAYS and mean_interval(right, images).high < NEAR_A_COIN


def _others_found(figures: Metrics, a: int, b: int) -> bool:
    others = [row.recall for i, row in enumerate(figures.per_class) if i not in (a, b) and row.support]
    return bool(others) and sum(others) / len(others) >= OTHERS_FOUND


def _finer(evidence: Evidence) -> str:
    """The flag of larger images, where the files hold more than the network sees."""
    larger = 2 * evidence.side
    return (
        f", or show the network finer detail (--image-size {larger})"
        if 0 < larger <= evidence.short_side
        else ""
    )


# -- shortcuts -------------------------------------------------------------------------------------------


def shortcut(evidence: Evidence) -> Finding | None:
    """A trivial property that the model goes by; or one of which its images cannot tell whether it does."""
    if _badly_trained(evidence) or shifted_parts(evidence):
        return None  # each explains what the property seems to
    leaning = sorted((use for use in evidence.shortcuts if use.leaning), key=lambda use: (use.used, use.drop))
    if leaning:
        return _used(leaning[-1])
    untold = [use for use in evidence.shortcuts if not use.can_be_told and use.alike]
    return _untold(untold[0]) if untold else None


def _used(use: ShortcutUse) -> Finding:
    helped, misled = use.alike_right / use.alike, use.against_right / use.against
    goes = "goes" if use.used else "may go"
    return Finding(
        "shortcut",
        "warning" if use.used else "info",
        f"The model {goes} by {use.name}, a shortcut. Where it points to the right class, "
        f"{percent(helped)} of {counted(use.alike, 'image')} are right; where it points to another, "
        f"{percent(misled)} of {use.against}, and {use.followed} got the class to which {use.name} "
        "points.",
        f"Make the classes alike in {use.name}, or add images of each class that differ in it. On other "
        "images expect the lower figure. `saccade audit` shows how the classes differ.",
        figure={"property": use.name, "alike": helped, "against": misled, "images": use.against},
    )


def _untold(use: ShortcutUse) -> Finding:
    return Finding(
        "shortcut",
        "info",
        f"The class can be guessed by {use.name} alone ({percent(use.accuracy)}), and only "
        f"{counted(use.against, 'image')} judged here would tell whether the model looks at anything else.",
        f"Measure it on images that are alike in {use.name}: `saccade evaluate RUN DATA`.",
        figure={"property": use.name, "accuracy": use.accuracy, "images": use.against},
    )
