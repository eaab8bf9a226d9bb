"""Which labels of a run look wrong, in every part: `report/label_errors.csv`, and what pages show of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from saccade.audit.decisions import DROP, decided_in
from saccade.evaluation.label_errors import label_signals
from saccade.insight.material import Material
from saccade.run_folder import RunFolder, csv_bytes
from saccade.spreadsheet import spreadsheet_safe

COLUMNS = ("path", "label", "suggested", "score", "part", "self_confidence", "distance_ratio")
MOST_SHOWN = 200  # that the page for decisions has pictures of
MOST_OTHERS = 9  # classes that have a key of their own there


def label_errors(material: Material) -> dict[str, Any] | None:
    """Write the table, and return what pages show of it; None where no label can be judged.

    The table has the used images of all parts, but for those that a person has decided about and those of a
    class that no other group shows. A label is doubted where another one is more probable.
    """
    classes = material.classes
    if len(classes) < 2:
        return None
    signals = label_signals(material.features, material.labels, material.groups, len(classes))
    score, others, decided = signals.score, signals.others, decided_paths(material.run)
    listed = [row for row in np.flatnonzero(signals.judged) if material.paths[row] not in decided]
    rows = [
        {
            "path": material.paths[row],
            "label": classes[material.labels[row]],
            "suggested": classes[others[row, 0]],
            "score": float(score[row]),
            "part": material.records[row].part,
            "self_confidence": float(signals.self_confidence[row]),
            "distance_ratio": float(signals.distance_ratio[row]),
            "others": [classes[other] for other in others[row, :MOST_OTHERS]],
            "doubted": bool(signals.probabilities[row, others[row, 0]] > 1 - score[row]),
        }
        for row in sorted(listed, key=lambda row: (-score[row], material.paths[row]))
    ]
    if not rows:
        material.run.remove(material.run.label_errors)
        return None
    material.run.write(material.run.label_errors, csv_bytes(COLUMNS, (_cells(row) for row in rows)))
    doubted = [row for row in rows if row.pop("doubted")]
    return {
        "images": len(material.records),
        "listed": len(rows),
        "doubted": len(doubted),
        "pretrained": material.pretrained,
        "weights": {"self_confidence": signals.weights[0], "distance": signals.weights[1]},
        "shown": doubted[:MOST_SHOWN],
    }


def decided_paths(run: RunFolder) -> Collection[str]:
    """Images about whose label a person has decided: never doubted again."""
    decided = decided_in(run.read_audit()) if run.has(run.audit) else ()
    return {one.path for one in decided if one.word != DROP}


def _cells(row: dict[str, Any]) -> list[str]:
    values = (row[name] for name in COLUMNS)
    return [f"{value:.6g}" if isinstance(value, float) else spreadsheet_safe(value) for value in values]
