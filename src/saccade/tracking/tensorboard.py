"""TensorBoard: event files in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.tracking.facts import RunFacts, whole_of
from saccade.tracking.tracker import Tracker


class TensorBoard(Tracker):
    """Writes below `place`, in a folder with the run's name; "" is `tensorboard` beside the run's folder."""

    tool, package = "tensorboard", "tensorboard"

    def open(self, run: RunFacts, folder: Path) -> None:
        self._folder = Path(self.place or whole_of(folder).parent / "tensorboard") / run.name
        self.where = str(self._folder)
        self._recipe = run.recipe
        self._writer: Any = None

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            self._writing(epoch).add_scalar(name, value, epoch)
        self._writing().flush()

    def conclude(self, run: RunFacts, folder: Path) -> None:
        for name, value in run.numbers.items():
            self._writing().add_scalar(name, value)
        self._writing().add_text("files", "\n".join(f"- {path.resolve()}" for path in run.files))
        self._writing().close()

    def _writing(self, epoch: int | None = None) -> Any:
        """An earlier file's epochs from `epoch` on are replaced, as TensorBoard understands it."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=epoch)
            rows = "\n".join(f"| {key} | {value} |" for key, value in self._recipe.items())
            self._writer.add_text("recipe", f"| key | value |\n|---|---|\n{rows}")
        return self._writer
