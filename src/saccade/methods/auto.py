"""Method auto, the default: fit the head, try fine-tuning in short, and go on only where that pays.

What goes on is method full, or method tail where a time limit is too short for that. Under a time limit
there is no trial: it would take the time of what it decides about.
"""

from __future__ import annotations

from dataclasses import replace

from saccade.methods.activations import fit_phases
from saccade.methods.full import phases
from saccade.methods.probe import Probe, fit_head
from saccade.methods.trial import judge_finetuning
from saccade.training.job import TrainingJob, begin, noted
from saccade.training.loop import FitResult, finish, guarded
from saccade.training.state import FitState

__all__ = ["phases", "train"]

HEAD_IS_ENOUGH = "the linear probe is enough"
WHAT_IS_TUNED = "what is fine-tuned"  # a choice that the clock has a say in


def train(job: TrainingJob, probe: Probe | None) -> FitResult:
    """Fit the head; fine-tune everything, the last layers or nothing, as a trial says."""
    with guarded(job):
        state, checkpoint = begin(job)
        if not state.phase and not state.finished:
            state = _decide(job, probe, fit_head(job, probe, state))
        job = _as_decided(job)
        return finish(job, fit_phases(job, state, checkpoint))


def _decide(job: TrainingJob, probe: Probe | None, state: FitState) -> FitState:
    """The state finished where the head is enough; what is tuned else, and how long, is written down."""
    if state.finished or job.watch.finish or job.checkpoints.choice(WHAT_IS_TUNED):
        return state
    assert probe is not None, "a head was fitted on frozen features"
    verdict = judge_finetuning(job, probe, job.plan.phases[state.phase])
    state = noted(job, state, verdict.reason)
    if not verdict.worth_it:
        state = replace(state, finished=HEAD_IS_ENOUGH)
        job.checkpoints.finish(state)
    else:
        chosen = {"method": "tail"} if verdict.tail else {"method": "full", "epochs": verdict.epochs}
        job.checkpoints.keep_choice(WHAT_IS_TUNED, chosen)
    return state


def _as_decided(job: TrainingJob) -> TrainingJob:
    """The job with the phases that the choice, if one was written down, has led to."""
    choice = job.checkpoints.choice(WHAT_IS_TUNED)
    if choice is None:
        return job
    whole, tail = job.plan.phases[-1], job.plan.last_layers
    assert tail is not None, "the plan of method auto has both"
    tuned = tail if choice["method"] == "tail" else replace(whole, epochs=choice["epochs"] or whole.epochs)
    return job.with_phases((*job.plan.phases[:-1], tuned))
