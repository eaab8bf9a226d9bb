"""Training in a loop one can read: phases, schedules, checkpoints, callbacks."""

from saccade.training.callbacks import (
    Callback,
    Callbacks,
    EpochProgress,
    TerminalProgress,
    TrainingView,
    callback_name,
    check_callbacks,
)
from saccade.training.clock import Clock
from saccade.training.inference import predict_logits
from saccade.training.job import TrainingData, TrainingJob, Watch
from saccade.training.loop import FitResult, fit, training_job
from saccade.training.state import Best, FrozenEvidence
from saccade.training.stop import StopRequest, stop_on_signals

__all__ = [
    "Best",
    "Callback",
    "Callbacks",
    "Clock",
    "EpochProgress",
    "FitResult",
    "FrozenEvidence",
    "StopRequest",
    "TerminalProgress",
    "TrainingData",
    "TrainingJob",
    "TrainingView",
    "Watch",
    "callback_name",
    "check_callbacks",
    "fit",
    "predict_logits",
    "stop_on_signals",
    "training_job",
]
