"""Method finetune, the classic two phases: the new head on a frozen base, then gentle fine-tuning.

Both learn step by step from augmented images; where `kept_views` asks for it the second learns from kept
activations of what is frozen.
"""

from __future__ import annotations

from saccade.methods.activations import fit_phases
from saccade.methods.phases import classic as phases
from saccade.methods.probe import Probe
from saccade.training.job import TrainingJob, begin
from saccade.training.loop import FitResult, finish, guarded

__all__ = ["phases", "train"]


def train(job: TrainingJob, probe: Probe | None = None) -> FitResult:
    """Train the head, then what is unfrozen."""
    with guarded(job):
        return finish(job, fit_phases(job, *begin(job)))
