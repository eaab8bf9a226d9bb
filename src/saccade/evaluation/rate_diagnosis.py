"""Findings about the learning rate that the curves show: too high, too low, or never lowered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from saccade.evaluation.remedies import (
    Evidence,
    epochs,
    fitted,
    lower_rate,
    method,
    phases,
    skill,
    skill_of,
    usual_rate,
    with_usual_rates,
)
from saccade.records import EpochRow, Finding

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
# epoch's rate reached what any of our optimizers needs, or a hundredth of what this one usually has.
HARDLY_MOVED, LOW_RATE, LOW_SHARE = 0.10, 1e-5, 0.01
# Fine-tuning that starts with twice the loss that the head had reached has broken the features.
BROKEN_START = 2.0
# Losses stand still where two halves of the last third of the epochs differ by less than 2 %, two fifths of
# what counts as still improving. A third of 12 epochs are two epochs a half; one a half is noise.
STILL, PLATEAU_EPOCHS = 0.02, 12
# Above this accuracy there is too little left to gain for another run.
GOOD_ENOUGH = 0.99
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
            usual = with_usual_rates(evidence.recipe).learning_rate
            if max(row.lr for row in rows) > 3 * usual and phase == parts[0][0]:
                remedy = f"Use the usual rate first ({method(evidence)}--lr {usual:g})."
                found = replace(found, remedy=remedy)
            return replace(found, severity="error")
        if max(row.lr for row in rows) <= _low_rate(evidence, phase):
            continue  # at such a rate losses jump by chance alone, where images are few
        if _jumps(rows, "train_loss", TRAIN_JUMP):
            return _rate_finding(evidence, phase, "made the training loss jump up again and again", rows)
        if _jumps(rows, "validation_loss", VALIDATION_JUMP) and not has_turned(rows):
            return _rate_finding(evidence, phase, "made the validation loss swing from epoch to epoch", rows)
    return None


def too_low_a_rate(evidence: Evidence) -> Finding | None:
    """Steps so short that the training loss hardly moved, while little is learnt."""
    if not evidence.history or diverged(evidence) or too_high_a_rate(evidence):
        return None
    phase, rows = phases(evidence.history)[-1]
    highest = max(row.lr for row in rows)
    if fitted(rows) or highest > _low_rate(evidence, phase) or len(phases(evidence.history)) > 1:
        return None
    fallen = max(_fallen([row.train_loss for row in rows]), _fallen([row.validation_loss for row in rows]))
    learnt = skill_in_training(evidence, rows) >= UNDERFIT_SKILL
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


def _low_rate(evidence: Evidence, phase: str) -> float:
    """The highest rate that is suspiciously low; fine-tuning has low ones."""
    if phase == "finetune":
        return LOW_RATE
    return max(LOW_RATE, LOW_SHARE * with_usual_rates(evidence.recipe).learning_rate)


def plateau(evidence: Evidence) -> Finding | None:
    """Neither loss has fallen in the last third of the epochs, and the rate was never lowered."""
    if any(rule(evidence) for rule in (diverged, too_high_a_rate, too_low_a_rate)) or not evidence.history:
        return None
    phase, rows = phases(evidence.history)[-1]
    last, recipe = rows[-(len(rows) // 3) :], evidence.recipe
    lowered = rows[-1].lr < max(row.lr for row in rows) or recipe.train.schedule == "cosine"
    if fitted(rows) or lowered or len(rows) < PLATEAU_EPOCHS or has_turned(rows):
        return None
    moved = any(_fallen([getattr(row, loss) for row in last]) >= STILL for loss in LOSSES)
    if moved or max(rows[-1].train_accuracy, rows[-1].validation_accuracy) >= GOOD_ENOUGH:
        return None
    learnt = skill_in_training(evidence, rows) >= UNDERFIT_SKILL
    return Finding(
        "plateau",
        "info" if learnt else "warning",
        f"A plateau: in the last {epochs(len(last))} of phase {phase!r} neither the training loss "
        f"({last[0].train_loss:.3g} to {last[-1].train_loss:.3g}) nor the validation loss "
        f"({last[0].validation_loss:.3g} to {last[-1].validation_loss:.3g}) fell, and the rate of "
        f"{rows[-1].lr:.3g} was never lowered.",
        "Let the rate fall towards the end (--schedule cosine). Where the losses stay there, the network is "
        "too small or the labels are wrong.",
        figure={"epochs": len(last), "lr": rows[-1].lr, "train_loss": last[-1].train_loss},
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
    learnt = skill_in_training(evidence, rows) if several else skill(rows[-1].train_accuracy, figures)
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


def skill_in_training(evidence: Evidence, rows: Sequence[EpochRow]) -> float:
    figures = evidence.train or evidence.judged
    if figures and figures.multi_label:
        return skill_of(figures)
    right = max(rows[-1].train_accuracy, rows[-1].validation_accuracy)
    return skill(evidence.train.accuracy.value if evidence.train else right, evidence.validation)


def _jumps(rows: Sequence[EpochRow], figure: str, factor: float) -> bool:
    losses = [getattr(row, figure) for row in rows]
    ups = sum(later > max(factor * earlier, earlier + NOISE) for earlier, later in pairwise(losses))
    return len(rows) >= JUMP_EPOCHS and ups >= 2 and ups >= JUMP_SHARE * (len(rows) - 1)


def has_turned(rows: Sequence[EpochRow], figure: str = "validation_loss") -> bool:
    """Whether this loss of validation (a field of the rows) rose in the end while that of training fell."""
    losses = [getattr(row, figure) for row in rows]
    best = losses.index(min(losses))
    return losses[-1] > TURNED_LOSS * losses[best] and rows[-1].train_loss < rows[best].train_loss
