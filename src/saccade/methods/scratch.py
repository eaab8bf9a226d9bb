"""From scratch: one phase in which everything learns."""

from __future__ import annotations

from saccade.methods.phases import from_scratch as phases
from saccade.methods.probe import Probe
from saccade.training.job import TrainingJob
from saccade.training.loop import FitResult, fit

__all__ = ["phases", "train"]


def train(job: TrainingJob, probe: Probe | None = None) -> FitResult:
    """Train the whole network on augmented images."""
    return fit(job)
