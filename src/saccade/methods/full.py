"""Method full: fit the head on frozen features, then fine-tune the whole network."""

from __future__ import annotations

from saccade.methods.activations import fit_phases
from saccade.methods.phases import FITTED_HEAD, whole_network
from saccade.methods.probe import Probe, fit_head
from saccade.plan import Phase
from saccade.recipe import Recipe
from saccade.training.job import TrainingJob, begin
from saccade.training.loop import FitResult, finish, guarded


def phases(recipe: Recipe) -> tuple[Phase, ...]:
    return FITTED_HEAD, whole_network(recipe)


def train(job: TrainingJob, probe: Probe | None) -> FitResult:
    """Fit the head, then learn everything from augmented images."""
    with guarded(job):
        state, checkpoint = begin(job)
        state = fit_head(job, probe, state)
        return finish(job, fit_phases(job, state, checkpoint))
