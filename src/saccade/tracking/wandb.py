"""Weights & Biases: files in `wandb/`, sent to a server only where WANDB_MODE says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from saccade.tracking.facts import RunFacts
from saccade.tracking.tracker import Tracker

# code and its repository, the load of the machine, the list of packages
NOT_COLLECTED = ("disable_git", "disable_code", "x_disable_stats")


class WandB(Tracker):
    """`place` is the project; "" is WANDB_PROJECT, or `saccade`. `wandb sync` sends what was written."""

    tool, package = "wandb", "wandb"

    def open(self, run: RunFacts, folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._run = wandb.init(
            project=self.place or os.environ.get("WANDB_PROJECT", "") or "saccade",
            name=run.name,
            id=run.key,
            resume="allow",
            reinit="create_new",  # a run of your own, open at the time, stays as it is
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(run.recipe),
            settings=wandb.Settings(silent=True, console="off", **dict.fromkeys(NOT_COLLECTED, True)),
        )
        self.where = str(Path(self._run.dir).parent)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(numbers), step=epoch)

    def conclude(self, run: RunFacts, folder: Path) -> None:
        import wandb

        self._run.summary.update(dict(run.numbers))
        kept = wandb.Artifact(run.name, type="run")
        for path in run.files:
            kept.add_file(str(path), path.relative_to(folder).as_posix())
        self._run.log_artifact(kept)
        self._run.finish()

    def stopped(self) -> None:
        self._run.finish(exit_code=1)
