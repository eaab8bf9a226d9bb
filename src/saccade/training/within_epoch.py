"""Checkpoints inside an epoch: by time, and where training is asked to stop.

One holds the state of the last finished epoch, the `Part` of the one under way, and weights, optimizer and
average as they are now. Order, augmentation, dropout and mixing are functions of epoch and step, so the steps
that are left then learn what they would have learnt.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace

from saccade.errors import Interrupted, SaccadeError
from saccade.training.job import TrainingJob
from saccade.training.learner import Learner
from saccade.training.not_finite import with_switch
from saccade.training.state import FitState
from saccade.training.tally import Tally
from saccade.transforms.batches import Batch

USUAL_SECONDS = 60.0  # between two checkpoints, where nobody said how many
MOST_SHARE = 0.02  # of the time, for writing them; what the first one takes is not known before


def pause(job: TrainingJob) -> float:
    """Seconds between two checkpoints inside an epoch; infinite where there are none."""
    every = job.plan.checkpoint_every
    if every == "auto":
        return max(USUAL_SECONDS, job.checkpoints.save_seconds / MOST_SHARE)
    return every or math.inf


def batches_left(job: TrainingJob, learner: Learner, state: FitState, tally: Tally) -> Iterator[Batch]:
    """The batches of an epoch that are left, with checkpoints between them; `tally` counts the steps.

    Raises Interrupted once a stop is asked for, after one more checkpoint.
    """
    kept, written = tally.steps, time.monotonic()
    source = _source(job, state)
    try:
        while True:
            job.watch.stop.check()
            batch = next(source, None)
            ahead = job.watch.clock.latest_validation_seconds if batch is None else 0.0
            if tally.steps > kept and time.monotonic() - written + ahead >= pause(job):
                with learner.average.in_place():
                    _write(job, learner, state, tally)
                kept, written = tally.steps, time.monotonic()
            if batch is None:
                return
            job.watch.stop.check()
            yield batch
    except Interrupted:
        if tally.steps > kept:
            with learner.average.in_place():
                _write_at_a_stop(job, learner, state, tally)
        raise


@contextlib.contextmanager
def kept_at_a_stop(job: TrainingJob, learner: Learner, state: FitState, tally: Tally) -> Iterator[None]:
    """Within it the epoch is validated, with the average in place; at a stop its steps are kept."""
    try:
        yield
    except Interrupted:
        if not (state.part and state.part.ended):  # else it is on disk
            _write_at_a_stop(job, learner, state, tally, ended=True)
        raise


def _source(job: TrainingJob, state: FitState) -> Iterator[Batch]:
    train, part = job.data.train, state.part
    if part is None:
        return iter(train.epoch(state.epoch + 1))
    if part.ended or part.steps >= len(train):
        return iter(())
    return iter(train.epoch(state.epoch + 1, start_batch=part.steps))


def _write_at_a_stop(
    job: TrainingJob, learner: Learner, state: FitState, tally: Tally, *, ended: bool = False
) -> None:
    """Keep the epoch as far as it is, unless a second signal asks for haste; a stop stays a stop."""
    if job.watch.stop.immediate or not job.plan.checkpoint_every:
        return
    try:
        kept, problem = _write(job, learner, state, tally, ended=ended), ""
    except SaccadeError as error:
        kept, problem = False, error.problem
    if kept or problem:
        what = f"epoch {state.epoch + 1}, {tally.steps} of {len(job.data.train)} steps"
        job.watch.callbacks.on_note(f"not kept: {what}: {problem}" if problem else f"kept: {what}")


def _write(job: TrainingJob, learner: Learner, state: FitState, tally: Tally, *, ended: bool = False) -> bool:
    """Write a checkpoint of the epoch under way; the network has the average, if any.

    False, and nothing is written, where weights are not finite: the next step says so.
    """
    if not _finite(learner):
        return False
    part = tally.part(elapsed=job.watch.clock.elapsed(), pace=learner.pace, ended=ended)
    state = replace(with_switch(learner, state), micro_batch=learner.micro_batch, part=part)
    raw = learner.average.other  # in place of which the network has the average
    job.checkpoints.save(state, job.classifier.state_dict(), *learner.optimizer_state(), raw=raw)
    return True


def _finite(learner: Learner) -> bool:
    """Whether all that learns is, and the average or the raw weights beside it."""
    weights = [p for group in learner.optimizer.param_groups for p in group["params"]]
    return all(bool(tensor.isfinite().all()) for tensor in (*weights, *learner.average.other.values()))
