"""Findings that the learning curves show: overfitting, too little learnt, too little time, needless phases.

Training accuracy is measured on augmented, mixed, dropped-out images while the network still learns, so it is
pessimistic: it may show overfitting, but never underfitting by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from saccade.evaluation.data_diagnosis import held_out_gap
from saccade.evaluation.intervals import wilson
from saccade.evaluation.rate_diagnosis import (
    GOOD_ENOUGH,
    UNDERFIT_SKILL,
    diverged,
    has_turned,
    plateau,
    too_high_a_rate,
    too_low_a_rate,
)
from saccade.evaluation.remedies import (
    SOME_IMAGES,
    Evidence,
    against_overfitted_head,
    against_overfitting,
    against_underfitting,
    epoch_name,
    epochs,
    fitted,
    kept_index,
    method,
    more_time,
    other_rate,
    percent,
    phases,
    rate_of,
    skill,
    skill_of,
    usual_size,
)
from saccade.records import EpochRow, Finding
from saccade.terminal import counted

# A training accuracy this far above validation is overfitting; less is common and does no harm (5 points
# are what batch norm and early stopping leave on small sets), and the interval must exclude it as well.
OVERFIT_GAP = 0.10
# Fewer images that were not learnt from than this tell nothing of a gap: one of 19 is 5 points.
LEAST_UNSEEN = 20
# Still improving: 5 % over the last three epochs and 1 % in the very last one (a cosine schedule ends flat).
STILL_IMPROVING, LAST_STEP = 0.05, 0.01
FITS_ITS_FEATURES = "fits_its_features"  # the kind of a gap that a linear head has


def overfitting(evidence: Evidence) -> Finding | None:
    """Much better on training images than on others, by more than chance explains."""
    if not evidence.history or evidence.series or held_out_gap(evidence):  # which say what the gap is
        return None
    row = evidence.history[kept_index(evidence.history)]
    train = evidence.train.accuracy.value if evidence.train else row.train_accuracy
    unseen = {"validation": evidence.validation, "test": evidence.test}
    judged = {part: figures for part, figures in unseen.items() if figures}
    value = high = row.validation_accuracy
    if judged:
        images = sum(figures.images for figures in judged.values())
        right = sum(round(figures.accuracy.value * figures.images) for figures in judged.values())
        value, high = right / images, wilson(right, images).high
        if images < LEAST_UNSEEN:
            return None
    if train - value < OVERFIT_GAP or train <= high:
        return None
    others = " and ".join(judged) or "validation"
    if fitted([row]) and evidence.recipe.model.head == "linear":
        return _fits_its_features(evidence, train, value, others)
    few = 0 < evidence.smallest_class < SOME_IMAGES
    return Finding(
        "overfitting",
        "warning",
        f"Overfitting: accuracy is {percent(train)} on training images, but only {percent(value)} on "
        f"{others} images. The model has memorised its training images.",
        against_overfitting(evidence, more_data_first=few),
        figure={"train_accuracy": train, "validation_accuracy": value, "gap": train - value},
    )


def _fits_its_features(evidence: Evidence, train: float, value: float, others: str) -> Finding:
    """A gap of a linear head, whose strength was chosen on held-out images: no alarm where it is good."""
    poor = skill(value, evidence.judged) < UNDERFIT_SKILL
    told = (
        "The frozen features do not part these classes well enough."
        if poor
        else "That is usual for a linear head, and no harm: its L2 penalty was chosen on images held out."
    )
    return Finding(
        FITS_ITS_FEATURES,
        "warning" if poor else "info",
        f"The head has {percent(train)} of its own training images right, and {percent(value)} of "
        f"{others} images. {told}",
        against_overfitted_head(evidence.recipe),
        figure={"train_accuracy": train, "validation_accuracy": value, "gap": train - value},
    )


def turned(evidence: Evidence) -> Finding | None:
    """The watched loss rose again while the training loss still fell; the kept weights are from before.

    Where another figure than a loss is watched, only if the kept epoch has the lowest validation loss too.
    """
    if not evidence.history or diverged(evidence):
        return None
    _, rows = phases(evidence.history)[-1]
    kept = kept_index(evidence.history)
    before = evidence.history[kept]
    if fitted(rows) or not has_turned(rows, "watched_loss") or before not in rows:
        return None
    if before.watched_loss > min(row.watched_loss for row in rows):
        return None
    return Finding(
        "turned",
        "info",
        f"After epoch {kept + 1} the {before.loss_in_words} rose from {before.watched_loss:.3g} "
        f"to {rows[-1].watched_loss:.3g} while the training loss went on falling: from there the network "
        f"overfitted. The weights of epoch {kept + 1} were kept, so the result does not suffer.",
        f"Nothing needs to be done; {_saved(evidence, len(evidence.history) - kept - 1)}",
        figure={"kept_epoch": kept + 1, "epochs": len(evidence.history)},
    )


def _saved(evidence: Evidence, count: int) -> str:
    """How the epochs after the best could have been left out."""
    smaller = (
        "a smaller train.early_stopping"
        if evidence.recipe.train.early_stopping
        else "--train.early-stopping 5"
    )
    return f"{counted(count, 'epoch')} could have been saved with {smaller}."


def fine_tuning_did_not_help(evidence: Evidence) -> Finding | None:
    """The best epoch lies before the last phase, so that phase was for nothing."""
    parts = phases(evidence.history)
    if len(parts) < 2 or diverged(evidence) or too_high_a_rate(evidence):
        return None
    kept = kept_index(evidence.history)
    phase, rows = parts[-1]
    if kept >= len(evidence.history) - len(rows):
        return None
    if harm := _harm(evidence, phase, rows, kept):
        return harm
    return Finding(
        "fine_tuning_did_not_help",
        "info",
        f"Phase {phase!r} never beat {epoch_name(evidence.history, kept)}, whose weights were kept; its "
        f"{epochs(len(rows))} changed nothing in the result.",
        other_rate(rows, evidence),
        figure={"kept_epoch": kept + 1, "epochs": len(rows)},
    )


def _harm(evidence: Evidence, phase: str, rows: Sequence[EpochRow], kept: int) -> Finding | None:
    """A last phase whose best epoch is worse than what it began with, by more than chance explains."""
    if evidence.validation is None or evidence.validation.multi_label:
        return None
    before, best = evidence.history[kept], min(rows, key=lambda row: row.score)
    images, accuracy = evidence.validation.images, before.validation_accuracy
    if best.validation_accuracy >= wilson(round(accuracy * images), images).low:
        return None
    return Finding(
        "fine_tuning_harmed",
        "warning",
        f"Fine-tuning did harm: {epoch_name(evidence.history, kept)} had {percent(accuracy)} of the "
        f"validation images right, the best epoch of phase {phase!r} {percent(best.validation_accuracy)}. "
        "The weights from before were kept, so the result does not suffer.",
        "Keep the head alone (--method head), or fine-tune with a third of the rate "
        f"({method(evidence)}--finetune-lr {rate_of(evidence, phase) / 3:.1g}).",
        figure={"before": accuracy, "after": best.validation_accuracy, "kept_epoch": kept + 1},
    )


def underfitting(evidence: Evidence) -> Finding | None:
    """Both parts are bad alike, and more epochs as they are would not change it."""
    others = (
        diverged,
        too_high_a_rate,
        too_low_a_rate,
        plateau,
        overfitting,
        stopped_too_early,
    )  # each explains low figures by itself
    if not evidence.history or any(rule(evidence) for rule in others):
        return None
    row, figures = evidence.history[kept_index(evidence.history)], evidence.validation
    value = figures.accuracy.value if figures else row.validation_accuracy
    # on augmented images training accuracy is pessimistic; the validation images show what was learnt
    train = evidence.train.accuracy.value if evidence.train else max(row.train_accuracy, value)
    if skill(train, figures) >= UNDERFIT_SKILL:
        return None
    return Finding(
        "underfitting",
        "warning",
        f"Underfitting: accuracy is {percent(train)} on training images and {percent(value)} on validation "
        "images. Both are low: the model is too small, too strongly regularised or too briefly trained.",
        against_underfitting(evidence),
        figure={"train_accuracy": train, "validation_accuracy": value},
    )


def images_too_small(evidence: Evidence) -> Finding | None:
    """Images far smaller than the backbone was made for, where the figures are low as well."""
    larger, figures = usual_size(evidence), evidence.judged
    if not larger or figures is None or skill_of(figures) >= UNDERFIT_SKILL:
        return None
    return Finding(
        "images_too_small",
        "warning",
        f"The network saw images of {evidence.side} x {evidence.side} pixels; "
        f"{evidence.recipe.model.backbone} was made for {evidence.usual_side}.",
        f"Use larger images ({larger}), in a new --out folder.",
        figure={"side": evidence.side, "usual": evidence.usual_side},
    )


def stopped_too_early(evidence: Evidence) -> Finding | None:
    """The watched loss was still falling when training ended."""
    if not evidence.history or evidence.history[-1].validation_accuracy >= GOOD_ENOUGH:
        return None
    if too_high_a_rate(evidence) or too_low_a_rate(evidence) or plateau(evidence):
        return None  # more time at such a rate is no remedy
    _, rows = phases(evidence.history)[-1]
    if (
        len(rows) < 2
        or fitted(rows)
        or rows[-1].watched_loss <= 0
        or kept_index(evidence.history) != len(evidence.history) - 1
    ):
        return None
    losses = [row.watched_loss for row in rows[-4:]]
    fallen, last = 1 - losses[-1] / losses[0], 1 - losses[-1] / losses[-2]
    if not (fallen >= STILL_IMPROVING and last >= LAST_STEP):
        return None
    return Finding(
        "stopped_too_early",
        "warning",
        f"Training ended while it was still improving: over the last {epochs(len(losses) - 1)} the "
        f"{rows[-1].loss_in_words} fell by {percent(fallen)}, to {losses[-1]:.3g}.",
        f"Give it more time: {more_time(evidence, len(rows))}, in a new --out folder.",
        figure={"fallen": fallen, "epochs": len(rows)},
    )
