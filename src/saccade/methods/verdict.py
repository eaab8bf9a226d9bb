"""Whether fine-tuning is worth its time: what a trial predicts, what it would cost, and what may be spent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.terminal import duration

# Epochs of the whole network that there must be time for; with less, its last layers alone come to more: an
# epoch of theirs takes a third to a half (docs/fast-training.md).
LEAST_FULL_EPOCHS, TAIL_EPOCH_SHARE = 5, 0.5
# A gain need not be proved, only likely: validation lets nothing worse than the head be kept, so a trial that
# promises too much costs time, and one that is doubted for too long costs the better model.
LIKELY_STANDARD_ERRORS = 1.0
WORTHWHILE_LOSS_SHARE = 0.1  # of the loss of the head alone
WORTHWHILE_ACCURACY = 0.02
# What auto spends of its own accord, where neither epochs nor a time limit were given
SECONDS_A_POINT, LEAST_ALLOWANCE, MOST_ALLOWANCE = 600.0, 600.0, 7200.0


class Trial(NamedTuple):
    """Losses (n,) and right answers (n,) of the head alone and after a short fine-tuning, on held-out images.

    `epoch_seconds`: what an epoch of fine-tuning on the whole training part will take, validation included.
    """

    head_losses: NDArray[np.float64]
    tuned_losses: NDArray[np.float64]
    head_right: NDArray[np.bool_]
    tuned_right: NDArray[np.bool_]
    epoch_seconds: float

    @property
    def points(self) -> float:
        """Gain of accuracy, in points."""
        return 100 * (float(self.tuned_right.mean()) - float(self.head_right.mean()))

    @property
    def head_error(self) -> float:
        """Share of the images that the head alone gets wrong."""
        return 1 - float(self.head_right.mean())

    @property
    def worse(self) -> bool:
        """Whether the loss rose and fewer answers are right."""
        return bool(self.tuned_losses.mean() > self.head_losses.mean() and self.points < 0)


@dataclass(frozen=True, slots=True)
class Terms:
    """What fine-tuning may take where there is no time limit.

    `epochs` of the whole network are planned, `tail_epochs` of the last layers. `bounded`: auto spends no
    more than `allowance` says. `other_seconds` the command takes for everything else, from its start to the
    report.
    """

    epochs: int = LEAST_FULL_EPOCHS
    tail_epochs: int = 1
    bounded: bool = False
    other_seconds: float = 0.0

    @property
    def least_epochs(self) -> int:
        """Of the whole network, for which there must be time."""
        return min(LEAST_FULL_EPOCHS, self.epochs)

    def allowance(self, points: float) -> float:
        """Seconds that may be spent on so many points of accuracy."""
        if not self.bounded:
            return math.inf
        return min(MOST_ALLOWANCE, max(LEAST_ALLOWANCE, SECONDS_A_POINT * points))

    def epochs_within(self, seconds: float, epoch_seconds: float) -> int:
        """Epochs of the whole network, of those that are planned, that fit into so many seconds."""
        return min(self.epochs, int(min(seconds, 1e9) / max(epoch_seconds, 1e-9)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether fine-tuning is worth its time, and why, in words.

    `tail`: of the last layers only. `epochs`: so many of the whole network, 0 for all that are planned.
    """

    worth_it: bool
    reason: str
    tail: bool = False
    epochs: int = 0


def verdict(trial: Trial, terms: Terms) -> Verdict:
    """Fine-tuning is worth its time where the held-out loss or the errors probably fell, and by enough.

    Either will do: a network that is right more often, but too sure of itself, is calibrated afterwards.
    A trial of the last layers promises less than the whole network brings (docs/lab-notes.md). So where
    enough epochs take no longer than auto spends on any gain, a trial that shows none is no reason against
    them, as long as it did no harm and there are errors to mend.
    """
    told = (
        f"short trial of fine-tuning the last layers, evaluated on {len(trial.head_right):,} held-out "
        f"training images: loss {trial.head_losses.mean():.3f} to {trial.tuned_losses.mean():.3f}, accuracy "
        f"{trial.head_right.mean():.1%} to {trial.tuned_right.mean():.1%}"
    )
    if doubt := _doubt(trial):
        return _doubted(told, doubt, trial, terms)
    allowed = terms.allowance(trial.points)
    epochs = terms.epochs_within(allowed, trial.epoch_seconds)
    if epochs < terms.least_epochs:
        return _too_dear(told, trial, terms, allowed)
    cost = _cost(epochs, trial.epoch_seconds, terms.other_seconds)
    fewer = f" (auto spends at most {duration(allowed)} on that gain)" if epochs < terms.epochs else ""
    return Verdict(
        True, f"{told}: fine-tuning helps, {_gain(trial)}. {cost}{fewer}. {STOPPING}", epochs=epochs
    )


STOPPING = "Ctrl-C stops it; `saccade train --resume RUN --finish` keeps the best so far"


def _doubted(told: str, doubt: str, trial: Trial, terms: Terms) -> Verdict:
    """The trial shows no gain that is likely and large enough."""
    epochs = terms.epochs_within(LEAST_ALLOWANCE, trial.epoch_seconds) if terms.bounded else 0
    if trial.worse or trial.head_error < WORTHWHILE_ACCURACY or epochs < max(1, terms.least_epochs):
        return Verdict(
            False, f"{told}: {doubt}, so we keep the linear probe (--method full fine-tunes anyway)"
        )
    cost = _cost(epochs, trial.epoch_seconds, terms.other_seconds)
    why = (
        f"{doubt}, but {trial.head_error:.1%} are wrong, and the whole network often gains more: we tune "
        f"it (auto plans at most {duration(LEAST_ALLOWANCE)}), and keep what is better on validation images"
    )
    return Verdict(True, f"{told}: {why}. {cost}. {STOPPING}", epochs=epochs)


def _too_dear(told: str, trial: Trial, terms: Terms, allowed: float) -> Verdict:
    """The gain is likely, but enough epochs of the whole network take longer than auto spends on it."""
    whole = (
        f"{_gain(trial)}, but an epoch of the whole network takes about {duration(trial.epoch_seconds)} and "
        f"auto spends at most {duration(allowed)} on that gain"
    )
    more = "--method full or a --time-limit allows more"
    tail_seconds = TAIL_EPOCH_SHARE * trial.epoch_seconds
    if terms.tail_epochs * tail_seconds > allowed:
        return Verdict(False, f"{told}: fine-tuning would help, {whole}: we keep the linear probe; {more}")
    cost = _cost(terms.tail_epochs, tail_seconds, terms.other_seconds)
    reason = f"{told}: fine-tuning helps, {whole}: only its last layers are fine-tuned ({more})"
    return Verdict(True, f"{reason}. {cost}. {STOPPING}", tail=True)


def _doubt(trial: Trial) -> str:
    """Why the trial shows no gain worth the time, or "" where it does."""
    less_loss = trial.head_losses - trial.tuned_losses
    more_right = trial.tuned_right.astype(float) - trial.head_right
    least_loss = WORTHWHILE_LOSS_SHARE * float(trial.head_losses.mean())
    if _likely(less_loss, least_loss) or _likely(more_right, WORTHWHILE_ACCURACY):
        return ""
    much = less_loss.mean() >= least_loss or more_right.mean() >= WORTHWHILE_ACCURACY
    return "with so few images the gain may be chance" if much else "little to gain"


def _likely(gains: NDArray[np.float64], least: float) -> bool:
    """Whether the mean of paired gains (n,) is at least `least` and more than chance would give."""
    if len(gains) < 2:
        return False
    error = gains.std(ddof=1) / math.sqrt(len(gains))
    return bool(gains.mean() >= least and gains.mean() > LIKELY_STANDARD_ERRORS * error)


def _gain(trial: Trial) -> str:
    if trial.points < 0.5:
        return "mostly by a lower loss"
    return f"by about {trial.points:.0f} {'point' if round(trial.points) == 1 else 'points'} of accuracy"


def _cost(epochs: int, epoch_seconds: float, other_seconds: float) -> str:
    """What the epochs take, and the whole command with them."""
    tuning = epochs * epoch_seconds
    return (
        f"About {duration(epoch_seconds)} an epoch, {epochs} epochs, about {duration(tuning)} without early "
        f"stopping; with everything else about {duration(tuning + other_seconds)} from start to report"
    )


class Cost(NamedTuple):
    """Seconds of an epoch of the whole network, and of some steps of the last layers with a validation."""

    epoch_seconds: float
    least_seconds: float


def within_limit(cost: Cost, seconds_left: float, epochs: int) -> Verdict:
    """What a time limit allows: the whole network, or its last layers, if for a part of an epoch, or nothing.

    No trial is made, which would take the time of what it decides about: validation keeps the head where that
    is better. `epochs` of the whole network are planned.
    """
    left = f"{max(0.0, seconds_left):.0f} s are left"
    if seconds_left < cost.least_seconds:
        return Verdict(False, f"{left}: we keep the linear probe; a longer --time-limit allows more")
    said = f"an epoch of the whole network takes about {cost.epoch_seconds:.0f} s and {left}"
    kept = "whatever does best on validation is kept, the linear probe included"
    if min(LEAST_FULL_EPOCHS, epochs) * cost.epoch_seconds > seconds_left:
        longer = "all of it with a longer --time-limit"
        return Verdict(True, f"{said}: only its last layers are fine-tuned ({longer}), and {kept}", tail=True)
    return Verdict(True, f"{said}: all of it is fine-tuned, and {kept}")
