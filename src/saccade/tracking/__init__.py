"""Experiment trackers: TensorBoard, MLflow, Weights & Biases. Each is a callback of a few lines.

They watch (`callbacks=[saccade.tracking.TensorBoard("logs")]`, `--track tensorboard:logs`) or are told of a
finished run (`saccade track RUN --to mlflow`). Their packages are imported when a run begins.
"""

from __future__ import annotations

from saccade.errors import RecipeError
from saccade.tracking.mlflow import MLflow
from saccade.tracking.tensorboard import TensorBoard
from saccade.tracking.tracker import Tracker
from saccade.tracking.wandb import WandB

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "Tracker", "WandB", "tracker"]

TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def tracker(text: str) -> Tracker:
    """The tracker that `tensorboard[:DIR]`, `mlflow[:URI]` or `wandb[:PROJECT]` means.

    Raises RecipeError for another name, MissingExtraError where its package is not installed.

    >>> sorted(TRACKERS)
    ['mlflow', 'tensorboard', 'wandb']
    """
    name, _, place = text.partition(":")
    if name not in TRACKERS:
        raise RecipeError(
            f"unknown tracker {name!r} in {text!r}",
            hint="choose from: tensorboard[:DIR], mlflow[:URI], wandb[:PROJECT]",
        )
    return TRACKERS[name](place)
