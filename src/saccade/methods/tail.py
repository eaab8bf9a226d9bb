"""Method tail: fit the head on frozen features, then fine-tune the last layers on kept activations."""

from __future__ import annotations

from saccade.methods.activations import fit_phases
from saccade.methods.phases import FITTED_HEAD, last_layers
from saccade.methods.probe import Probe, fit_head
from saccade.plan import Phase
from saccade.recipe import Recipe
from saccade.training.job import TrainingJob, begin
from saccade.training.loop import FitResult, finish, guarded


def phases(recipe: Recipe) -> tuple[Phase, ...]:
    return FITTED_HEAD, last_layers(recipe)


def train(job: TrainingJob, probe: Probe | None) -> FitResult:
    """Fit the head, then learn from activations of the frozen stages, computed once a view."""
    with guarded(job):
        state, checkpoint = begin(job)
        state = fit_head(job, probe, state)
        return finish(job, fit_phases(job, state, checkpoint))
