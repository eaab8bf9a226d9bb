"""What every tracker has in common: it watches, and where it fails it warns once and training goes on."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from saccade.errors import MissingExtraError
from saccade.records import EpochRow
from saccade.run_folder import RunFolder
from saccade.terminal import say_problem
from saccade.tracking.facts import RunFacts, epoch_figures, facts_of
from saccade.training import Callback, TrainingView

# Who asks, in an address: a name, a password behind it, or a token. Passwords may hold / and @.
SECRETS = re.compile(r"(?<=://)(?!/)\S*@")


def without_secrets(text: str) -> str:
    """The text, its addresses without names, passwords and tokens.

    >>> without_secrets("no answer from https://me:se/cret@example.org/api")
    'no answer from https://example.org/api'
    """
    return SECRETS.sub("", text)


class Tracker(Callback):
    """Override `open`, `log` and `conclude`, and where there is need `check` and `stopped`.

    `place` is where to: a folder, an address, a project; "" is the tool's usual one. Raises MissingExtraError
    where the tool's package is not installed.
    """

    tool: ClassVar[str]  # as `--track` calls it, and as the extra is called
    package: ClassVar[str]

    def __init__(self, place: str = "") -> None:
        if importlib.util.find_spec(self.package) is None:
            raise MissingExtraError(self.package, self.tool, f"tracking with {self.tool}")
        self.place = place
        self.check()
        self.where = ""  # known once a run is open
        self.finished = self.failed = False

    def check(self) -> None:
        """Raise SaccadeError for a place that cannot be meant; called before anything is read."""

    def open(self, run: RunFacts, folder: Path) -> None:
        """The run begins, or continues: its recipe."""
        raise NotImplementedError

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """What an epoch came to."""
        raise NotImplementedError

    def conclude(self, run: RunFacts, folder: Path) -> None:
        """The run is finished: metrics with intervals, and files."""
        raise NotImplementedError

    def stopped(self) -> None:
        """Training was stopped, or failed."""

    def on_begin(self, folder: Path) -> None:
        self.finished = self.failed = False
        self._try(lambda: self.open(facts_of(folder), folder))

    def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
        self._try(lambda: self.log(epoch_figures(row), row.epoch))

    def on_finish(self, state: TrainingView) -> None:
        self.finished = True

    def on_close(self) -> None:
        if not self.finished:
            self._try(self.stopped)

    def on_conclude(self, folder: Path) -> None:
        self._try(lambda: self.conclude(facts_of(folder), folder))

    def _try(self, step: Callable[[], Any]) -> None:
        """A tool that failed is not asked again in this run: the next answer may be minutes away."""
        if self.failed:
            return
        try:
            step()
        except Exception as error:  # a tracker's tool raises whatever it likes, and training must go on
            self.failed = True
            told = without_secrets(" ".join(str(error).split()))[:300]
            say_problem(
                "warning",
                f"tracking with {self.tool} ended: {type(error).__name__}: {told}",
                hint=f"the run itself goes on; once it is finished: saccade track RUN --to {self.tool}",
            )


def tell(tracker: Tracker, run: RunFolder) -> None:
    """Tell a tracker of a finished run; raises what its tool raises."""
    facts = facts_of(run.root)
    rows = [] if run.read_recipe().split.folds else run.read_history()  # the folds have their own
    tracker.open(facts, run.root)
    for row in rows:
        tracker.log(epoch_figures(row), row.epoch)
    tracker.conclude(facts, run.root)
