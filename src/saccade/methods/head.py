"""Method head, a linear probe: the head alone, fitted on frozen features in seconds."""

from __future__ import annotations

from saccade.methods.phases import FITTED_HEAD
from saccade.methods.probe import Probe, fit_head
from saccade.plan import Phase
from saccade.recipe import Recipe
from saccade.training.job import TrainingJob, begin
from saccade.training.loop import FitResult, finish, guarded


def phases(recipe: Recipe) -> tuple[Phase, ...]:
    return (FITTED_HEAD,)


def train(job: TrainingJob, probe: Probe | None) -> FitResult:
    """Fit the head."""
    with guarded(job):
        state, _ = begin(job)
        return finish(job, fit_head(job, probe, state))
