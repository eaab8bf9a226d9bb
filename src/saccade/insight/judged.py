"""The answers that the result of a run is told of: those on its judged part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saccade.insight.material import Material
from saccade.records import Predictions
from saccade.report.facts import judged_part


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers on the images of `part`, with what is asked of them again and again.

    Row i of `rows` is where image i of `predictions` stands in the material, -1 where it does not. `wrong`
    are mistakes of which the material has the image, the most confident first.
    """

    part: str
    predictions: Predictions
    rows: tuple[int, ...]
    wrong: tuple[int, ...]
    predicted: tuple[str, ...]
    confidence: tuple[float, ...]

    def told(self, i: int) -> dict[str, Any]:
        """Answer i as plain values."""
        return {
            "path": self.predictions.paths[i],
            "label": self.predictions.labels[i],
            "predicted": self.predicted[i],
            "confidence": round(self.confidence[i], 6),
        }


def judged_answers(material: Material) -> Judged | None:
    """None where the run has no answers of its judged part."""
    run = material.run
    part = judged_part([path.stem for path in run.metrics("any").parent.glob("*.json")])
    if not part or not run.has(run.predictions(part)):
        return None
    predictions = run.read_predictions(part)
    place = {path: row for row, path in enumerate(material.paths)}
    rows = tuple(place.get(path, -1) for path in predictions.paths)
    return Judged(
        part,
        predictions,
        rows,
        tuple(i for i in predictions.wrong if rows[i] >= 0),
        predictions.predicted,
        tuple(predictions.confidence.tolist()),
    )
