"""The learning-rate range test: the rate rises from step to step, and the loss says what a network bears.

Smith 2017, "Cyclical learning rates for training neural networks". The classifier is left as it was.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from saccade.errors import TrainingError
from saccade.models.finetune import set_training_mode
from saccade.plan import Phase
from saccade.terminal import Progress, silent
from saccade.training.job import TrainingJob, freeze_for
from saccade.training.learner import Learner, begin_phase
from saccade.training.loop import train_step
from saccade.transforms.batches import Batch

LOWEST_SHARE, HIGHEST_SHARE = 1e-3, 1e3  # of the phase's own rate
SMOOTHING = 0.9  # of the loss, over about ten steps
DIVERGED = 4.0  # times the lowest loss
SAFETY = 10.0  # the suggestion lies so far below the rate at which the loss was lowest
LEAST_FALL = 0.1  # of the loss: with less, nothing was learnt
BORNE = 1.25  # times the loss at the start: above it a rate does harm


@dataclass(frozen=True, slots=True)
class RangeTest:
    """Rates that were tried, one a step, and the smoothed loss at each; `phase` names what learnt.

    >>> RangeTest("main", (1e-4, 1e-3, 1e-2, 1e-1), (1.0, 0.8, 0.5, 0.9)).suggestion
    0.001
    """

    phase: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def start(self) -> float:
        """The loss at rates that move nothing yet: the mean of the first tenth."""
        first = self.losses[: max(1, len(self.losses) // 10)]
        return sum(first) / max(1, len(first))

    @property
    def learnt(self) -> bool:
        """Whether the loss fell."""
        return min(self.losses, default=math.inf) < (1 - LEAST_FALL) * self.start

    @property
    def turn(self) -> int:
        """Index of the lowest loss; where it did not fall, of the last one before it rose."""
        if self.learnt:
            return min(range(len(self.losses)), key=self.losses.__getitem__)
        return max((i for i, loss in enumerate(self.losses) if loss <= BORNE * self.start), default=0)

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the loss turned."""
        return self.rates[self.turn] / SAFETY


def range_test(
    job: TrainingJob, phase: Phase, *, steps: int, first_epoch: int = 1, progress: Progress = silent
) -> RangeTest:
    """Train a copy of the classifier for up to `steps` steps at rising rates.

    From a thousandth of the phase's rate to a thousand times as much; it ends where the loss is four times
    its lowest, or not finite. `first_epoch`: whose views of the images come first; the classifier should not
    have learnt from them.
    """
    job = replace(job, classifier=copy.deepcopy(job.classifier))
    learner = _learner(job, phase)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    with job.runtime.training_arithmetic():
        for step, batch in enumerate(itertools.islice(_batches(job, first_epoch), steps)):
            job.watch.stop.check()
            rate = phase.learning_rate * rate_share(step, steps)
            loss = _step(learner, batch, step, rate)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smoothed = mean / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(loss) or smoothed > DIVERGED * min([*losses, smoothed]):
                break
            rates.append(rate)
            losses.append(smoothed)
            progress(step + 1, steps)
    return RangeTest(phase.name, tuple(rates), tuple(losses))


def rate_share(step: int, steps: int) -> float:
    """The rate of a step as a share of the phase's own, in even factors.

    >>> [f"{rate_share(step, 7):g}" for step in (0, 3, 6)]
    ['0.001', '1', '1000']
    """
    done = step / max(1, steps - 1)
    return float(LOWEST_SHARE * (HIGHEST_SHARE / LOWEST_SHARE) ** done)


def learn(job: TrainingJob, phase: Phase, *, steps: int, progress: Progress = silent) -> None:
    """Train the job's own classifier for so many steps at the phase's rate, from the first epoch on."""
    learner = _learner(job, phase)
    with job.runtime.training_arithmetic():
        for step, batch in enumerate(itertools.islice(_batches(job, 1), steps)):
            job.watch.stop.check()
            _step(learner, batch, step, phase.learning_rate)
            progress(step + 1, steps)


def _learner(job: TrainingJob, phase: Phase) -> Learner:
    freeze_for(job.classifier, phase)
    job.runtime.place(job.classifier)
    learner = begin_phase(job, phase)
    set_training_mode(job.classifier, keep_statistics=phase.keep_statistics)
    return learner


def _batches(job: TrainingJob, first_epoch: int) -> Iterator[Batch]:
    """Epoch after epoch."""
    return itertools.chain.from_iterable(map(job.data.train.epoch, itertools.count(first_epoch)))


def _step(learner: Learner, batch: Batch, step: int, rate: float) -> float:
    """The loss of one step at this rate; NaN where it is not finite."""
    learner.set_rate(rate)
    try:
        losses, _ = train_step(learner, batch, step)
    except TrainingError:  # of the watch over losses, for which this is the end of a training
        return math.nan
    return float(losses.mean())
