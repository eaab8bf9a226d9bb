"""The picture of `saccade lr`: the loss at each learning rate, and what is suggested."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import Protocol

from saccade.errors import MissingExtraError


class Curve(Protocol):
    """A range test, as far as it is drawn."""

    @property
    def phase(self) -> str: ...
    @property
    def rates(self) -> Sequence[float]: ...
    @property
    def losses(self) -> Sequence[float]: ...


def draw(curves: Sequence[Curve], suggested: Sequence[float]) -> bytes:
    """A PNG; raises MissingExtraError without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "train", "drawing figures")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(curves), 4), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, curve, rate in zip(panels, curves, suggested, strict=True):
        axes.semilogx(curve.rates, curve.losses, color="#3366aa")
        axes.axvline(rate, color="#cc7733", linestyle="--", label=f"suggested: {rate:g}")
        axes.set_title(f"phase {curve.phase}")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss, smoothed")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
