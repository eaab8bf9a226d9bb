"""Every error saccade raises on purpose. Each says what is wrong (where, got); its `hint` says what to do.

SaccadeError                 caught by the command line: printed without a traceback, exit 2
├── RecipeError              a key, flag or value of the recipe does not hold
├── DataError                the data as a whole cannot be used
│   ├── SourceError          a folder, list or archive cannot be read as a data set
│   └── SplitError           no honest split can be made, or the given one leaks
├── ImageError               one image cannot be used (set aside by name, never fatal for a data set)
│   └── ChangedImageError    its bytes are not those that were scanned
├── ModelError               a backbone, its weights or a model file cannot be used
│   └── TooLargeError        an image needs more memory than a model may use here
├── RunError                 a run folder is locked, damaged, or belongs to another recipe
│   ├── OtherRunError        a run folder holds a run of other images or of another recipe
│   └── NotFittedError       asked of a classifier that has no run (yet); also an AttributeError
├── TrainingError            training cannot go on (out of memory)
│   └── NotFiniteError       a loss or a gradient is NaN or infinite
├── EngineError              the cluster that --engine names cannot be reached, or its work failed
├── PromiseError             one of the ten promises would be broken
└── MissingExtraError        an optional dependency is absent; names the `pip install` line

Interrupted                  stopped by a signal: not a problem, so not of the family; exit 128 + signal
"""

from __future__ import annotations

import functools
import sys
from typing import Any

# Modules that come with saccade[train]
OF_TRAINING = {
    *("torch", "torchvision", "timm", "lightning_fabric", "safetensors", "onnx", "onnxscript", "sklearn"),
    *("threadpoolctl", "faiss", "pyarrow", "jinja2", "matplotlib", "simplejpeg"),
}
LEFT_OUT = ". Left out. "  # between reason and remedy in an ImageError's text


class SaccadeError(Exception):
    """A problem the user can act on: what is wrong, and in `hint` what to do about it.

    Arguments after the first are lines below it, one for each thing to correct. They stay apart, so that
    a line end inside a name cannot pass for one of them where they are printed.

    >>> print(SaccadeError("data path does not exist: photos", hint="check the path"))
    data path does not exist: photos
    hint: check the path
    """

    def __init__(self, *lines: str, hint: str = "") -> None:
        super().__init__(*lines)
        self.hint = hint

    @property
    def problem(self) -> str:
        """What is wrong, on one line and without the hint: for lists and other messages."""
        return "; ".join(map(str, self.args))

    def __str__(self) -> str:
        text = "\n  ".join(map(str, self.args))
        return f"{text}\nhint: {self.hint}" if self.hint else text


class RecipeError(SaccadeError):
    """A key, flag or value of the recipe does not hold."""


class DataError(SaccadeError):
    """The data as a whole cannot be used."""


class SourceError(DataError):
    """A folder, list or archive cannot be read as a data set."""


class SplitError(DataError):
    """No honest split can be made, or the given one leaks."""


class ImageError(SaccadeError):
    """One image cannot be used.

    `reason` says what is wrong with the file (no path in it), `remedy` what to do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}{LEFT_OUT}{remedy}")  # on one line: it stands in lists of findings
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.reason, self.remedy)  # crosses process boundaries


class ChangedImageError(ImageError):
    """An image's bytes are not those that were scanned."""

    def __init__(self) -> None:
        super().__init__("its bytes are not those that were scanned", "Put the file back")

    def __reduce__(self) -> tuple[type[ChangedImageError], tuple[()]]:  # type: ignore[override]
        return ChangedImageError, ()


class ModelError(SaccadeError):
    """A backbone, its weights or a model file cannot be used."""


class TooLargeError(ModelError):
    """An image needs more memory than a model may use here; smaller ones can be predicted."""


class RunError(SaccadeError):
    """A run folder is locked, damaged, or belongs to another recipe."""


class OtherRunError(RunError):
    """A run folder holds a run of other images or of another recipe."""


class NotFittedError(RunError, AttributeError):
    """Asked of a classifier that has no run to look at, so that `hasattr(model, "history_")` is False.

    Where scikit-learn is imported, `except sklearn.exceptions.NotFittedError` catches it, too.
    """

    def __new__(cls, *lines: str, hint: str = "") -> NotFittedError:
        theirs = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", None)
        made: NotFittedError = super().__new__(_not_fitted(theirs) if theirs else cls, *lines)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return NotFittedError, self.args, self.__dict__  # the class with both is made where it is needed


@functools.cache
def _not_fitted(theirs: type[Exception]) -> type[NotFittedError]:
    return type("NotFittedError", (NotFittedError, theirs), {"__module__": NotFittedError.__module__})


class TrainingError(SaccadeError):
    """Training cannot go on."""


class NotFiniteError(TrainingError):
    """A loss or a gradient is NaN or infinite: nothing is learnt from it."""


class EngineError(SaccadeError):
    """The cluster that `--engine` names cannot be reached, or its work failed."""


class PromiseError(SaccadeError):
    """One of the ten promises would be broken."""


class MissingExtraError(SaccadeError):
    """An optional dependency is absent."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            hint=f"pip install 'saccade[{extra}]' (from a checkout: pip install '.[{extra}]')",
        )
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        return MissingExtraError, (self.package, self.extra, self.purpose)


class Interrupted(KeyboardInterrupt):
    """Stopped on request by a signal (2 is Ctrl-C, 15 is SIGTERM); what was finished is on disk.

    No Exception: it may come anywhere, also where whatever a library raises is caught and answered.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal
