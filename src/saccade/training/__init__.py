"""Training in a loop one can read: phases, schedules, checkpoints, callbacks."""

from saccade.training.callbacks import Callback, EpochProgress, TerminalProgress, TrainingView
from saccade.training.inference import predict_logits
from saccade.training.loop import FitResult, fit
from saccade.training.state import Best, FrozenEvidence
from saccade.training.stop import StopRequest

__all__ = [
    "Best",
    "Callback",
    "EpochProgress",
    "FitResult",
    "FrozenEvidence",
    "StopRequest",
    "TerminalProgress",
    "TrainingView",
    "fit",
    "predict_logits",
]
