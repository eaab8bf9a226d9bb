"""Findings that the learning curves show: the learning rate, overfitting, too little learnt, too little time.

Training accuracy is measured on augmented, mixed, dropped-out images while the network still learns, so it is
pessimistic: it may show overfitting, but never underfitting by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from saccade.evaluation.intervals import wilson
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
    lower_rate,
    method,
    more_time,
    other_rate,
    percent,
    phases,
    skill,
    skill_of,
    usual_rate,
    usual_size,
)
from saccade.records import EpochRow, Finding
from saccade.terminal import counted

# A training accuracy this far above validation is overfitting; less is common and does no harm (5 points
# are what batch norm and early stopping leave on small sets), and the interval must exclude it as well.
OVERFIT_GAP = 0.10
# Fewer images that were not learnt from than this tell nothing of a gap: one of 19 is 5 points.
LEAST_UNSEEN = 20
# The validation loss has turned when it ends this much above its best. Losses of small validation parts
# wander by 5 % from epoch to epoch; 15 % is three times that.
TURNED_LOSS = 1.15
# Share of the way from "always the commonest class" to perfect. Below it even the training images are not
# learnt: 7 tenths is 0.85 accuracy for two balanced classes, 0.73 for ten.
UNDERFIT_SKILL = 0.7
# A loss that rises by more than this from one epoch to the next jumps. Training loss is a mean over many
# images and rises by 10 % only when steps are too long; validation loss wanders more.
TRAIN_JUMP, VALIDATION_JUMP = 1.10, 1.30
# Jumps in a third of the epochs are a pattern and not an accident; three epochs are too few to tell.
JUMP_SHARE, JUMP_EPOCHS = 1 / 3, 4
# Near zero every loss wanders by factors; a rise of less than 0.05 (5 % of the true class's probability) is
# noise.
NOISE = 0.05
# Equal probabilities for all classes cost log(classes). Too long steps leave a loss of many times that, which
# the schedule's falling rate brings down at the end: the trend says nothing.
FAR_ABOVE_CHANCE = 3.0
# Skill on training images; a network that is right there, but too sure of itself on new ones, is no such
# case.
LEARNT_LITTLE = 0.5
# A rate so low that nothing moves: over all epochs the training loss fell by less than this share, and no
# epoch's rate reached what any of our optimizers needs.
HARDLY_MOVED, LOW_RATE = 0.10, 1e-5
# Fine-tuning that starts with twice the loss that the head had reached has broken the features.
BROKEN_START = 2.0
# Still improving: 5 % over the last three epochs and 1 % in the very last one (a cosine schedule ends flat).
STILL_IMPROVING, LAST_STEP = 0.05, 0.01
# Above this there is too little left to gain for another run.
GOOD_ENOUGH = 0.99
FITS_ITS_FEATURES = "fits_its_features"  # the kind of a gap that a linear head has
LOSSES = ("train_loss", "validation_loss")


def diverged(evidence: Evidence) -> Finding | None:
    """A loss that is NaN or infinite."""
    for i, row in enumerate(evidence.history):
        if not (math.isfinite(row.train_loss) and math.isfinite(row.validation_loss)):
            return Finding(
                "too_high_a_rate",
                "error",
                f"The loss became NaN or infinite in epoch {i + 1}: training diverged.",
                lower_rate(evidence, row.phase),
                figure={"epoch": i + 1, "lr": row.lr},
            )
    return None


def too_high_a_rate(evidence: Evidence) -> Finding | None:
    """Losses that jump up again and again, or a start of fine-tuning that breaks what the head had learnt."""
    if diverged(evidence):
        return None
    parts = phases(evidence.history)
    for (_, before), (phase, rows) in pairwise(parts):
        if all(_broken(getattr(before[-1], loss), getattr(rows[0], loss)) for loss in LOSSES):
            return _rate_finding(evidence, phase, "broke what the phase before had learnt", rows)
    for phase, rows in parts:
        worst = _far_above_chance(evidence, rows)
        if worst:
            found = _rate_finding(evidence, phase, f"drove the loss to {worst:.3g}, far above chance", rows)
            usual = evidence.recipe.replaced(train__lr="auto").learning_rate
            if max(row.lr for row in rows) > 3 * usual and phase == parts[0][0]:
                remedy = f"Use the usual rate first ({method(evidence)}--lr {usual:g})."
                found = replace(found, remedy=remedy)
            return replace(found, severity="error")
        if _jumps(rows, "train_loss", TRAIN_JUMP):
            return _rate_finding(evidence, phase, "made the training loss jump up again and again", rows)
        if _jumps(rows, "validation_loss", VALIDATION_JUMP) and not _turned(rows):
            return _rate_finding(evidence, phase, "made the validation loss swing from epoch to epoch", rows)
    return None


def too_low_a_rate(evidence: Evidence) -> Finding | None:
    """Steps so short that the training loss hardly moved, while little is learnt."""
    if not evidence.history or diverged(evidence) or too_high_a_rate(evidence):
        return None
    phase, rows = phases(evidence.history)[-1]
    highest = max(row.lr for row in rows)
    if fitted(rows) or highest > LOW_RATE or len(phases(evidence.history)) > 1:
        return None
    fallen = max(_fallen([row.train_loss for row in rows]), _fallen([row.validation_loss for row in rows]))
    learnt = _skill_in_training(evidence, rows) >= UNDERFIT_SKILL
    if learnt or fallen >= HARDLY_MOVED:
        return None
    return Finding(
        "too_low_a_rate",
        "error",
        f"The learning rate is too low: with {highest:.3g} in phase {phase!r} the loss hardly moved "
        f"(in training {rows[0].train_loss:.3g} to {rows[-1].train_loss:.3g} in {epochs(len(rows))}).",
        f"Use a higher rate ({usual_rate(evidence)}); more epochs at this one change little.",
        figure={"phase": phase, "lr": highest, "fallen": fallen},
    )


def overfitting(evidence: Evidence) -> Finding | None:
    """Much better on training images than on others, by more than chance explains."""
    if not evidence.history or evidence.series:  # which say what the gap is
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
    """The validation loss rose again while the training loss still fell; the kept weights are from before."""
    if not evidence.history or diverged(evidence):
        return None
    _, rows = phases(evidence.history)[-1]
    kept = kept_index(evidence.history)
    if fitted(rows) or not _turned(rows) or evidence.history[kept] not in rows:
        return None
    return Finding(
        "turned",
        "info",
        f"After epoch {kept + 1} the validation loss rose from {evidence.history[kept].validation_loss:.3g} "
        f"to {rows[-1].validation_loss:.3g} while the training loss went on falling: from there the network "
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
    return Finding(
        "fine_tuning_did_not_help",
        "info",
        f"Phase {phase!r} never beat {epoch_name(evidence.history, kept)}, whose weights were kept; its "
        f"{epochs(len(rows))} changed nothing in the result.",
        other_rate(rows, evidence),
        figure={"kept_epoch": kept + 1, "epochs": len(rows)},
    )


def underfitting(evidence: Evidence) -> Finding | None:
    """Both parts are bad alike, and more epochs as they are would not change it."""
    others = (
        diverged,
        too_high_a_rate,
        too_low_a_rate,
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
    """The validation loss was still falling when training ended."""
    if not evidence.history or evidence.history[-1].validation_accuracy >= GOOD_ENOUGH:
        return None
    if too_high_a_rate(evidence) or too_low_a_rate(evidence):
        return None  # more time at such a rate is no remedy
    _, rows = phases(evidence.history)[-1]
    if (
        len(rows) < 2
        or fitted(rows)
        or rows[-1].validation_loss <= 0
        or kept_index(evidence.history) != len(evidence.history) - 1
    ):
        return None
    losses = [row.validation_loss for row in rows[-4:]]
    fallen, last = 1 - losses[-1] / losses[0], 1 - losses[-1] / losses[-2]
    if not (fallen >= STILL_IMPROVING and last >= LAST_STEP):
        return None
    return Finding(
        "stopped_too_early",
        "warning",
        f"Training ended while it was still improving: over the last "
        f"{epochs(len(losses) - 1)} the validation loss fell by {percent(fallen)}, to {losses[-1]:.3g}.",
        f"Give it more time: {more_time(evidence, len(rows))}, in a new --out folder.",
        figure={"fallen": fallen, "epochs": len(rows)},
    )


def _rate_finding(evidence: Evidence, phase: str, what: str, rows: Sequence[EpochRow]) -> Finding:
    highest = max(row.lr for row in rows)
    return Finding(
        "too_high_a_rate",
        "warning",
        f"The learning rate is too high: {highest:.3g} in phase {phase!r} {what}.",
        lower_rate(evidence, phase),
        figure={"phase": phase, "lr": highest},
    )


def _broken(before: float, after: float) -> bool:
    return after > max(BROKEN_START * before, before + NOISE)


def _far_above_chance(evidence: Evidence, rows: Sequence[EpochRow]) -> float:
    """The largest loss of epochs that were far above chance, 0 where none was.

    In training any such epoch counts. In validation it takes a network that has learnt little in training as
    well: one that knows its training images by heart may be certain and wrong on others.
    """
    if fitted(rows):
        return 0.0
    figures = evidence.judged
    several = figures is not None and figures.multi_label  # the loss is the mean of a yes or no for each
    classes = len(figures.classes) if figures and not several else 2
    most = FAR_ABOVE_CHANCE * math.log(max(2, classes))
    learnt = _skill_in_training(evidence, rows) if several else skill(rows[-1].train_accuracy, figures)
    little = learnt < LEARNT_LITTLE
    losses = [row.train_loss for row in rows]
    losses += [row.validation_loss for row in rows] if little else []
    return max((loss for loss in losses if loss > most), default=0.0)


def _fallen(losses: Sequence[float]) -> float:
    """By which share the mean loss of the later epochs lies below that of the earlier ones.

    Means, because with strong augmentation the loss of an epoch wanders by more than a slow rate moves it.
    """
    half = len(losses) // 2
    earlier = sum(losses[:half]) / max(1, half)
    return 1 - sum(losses[half:]) / (len(losses) - half) / earlier if earlier > 0 else 0.0


def _skill_in_training(evidence: Evidence, rows: Sequence[EpochRow]) -> float:
    figures = evidence.train or evidence.judged
    if figures and figures.multi_label:
        return skill_of(figures)
    right = max(rows[-1].train_accuracy, rows[-1].validation_accuracy)
    return skill(evidence.train.accuracy.value if evidence.train else right, evidence.validation)


def _jumps(rows: Sequence[EpochRow], figure: str, factor: float) -> bool:
    losses = [getattr(row, figure) for row in rows]
    ups = sum(later > max(factor * earlier, earlier + NOISE) for earlier, later in pairwise(losses))
    return len(rows) >= JUMP_EPOCHS and ups >= 2 and ups >= JUMP_SHARE * (len(rows) - 1)


def _turned(rows: Sequence[EpochRow]) -> bool:
    best = min(range(len(rows)), key=lambda i: rows[i].validation_loss)
    last = rows[-1]
    risen = last.validation_loss > TURNED_LOSS * rows[best].validation_loss
    return risen and last.train_loss < rows[best].train_loss
