"""What an evaluation of other images writes down about itself: which model, which images, when."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saccade.errors import RunError
from saccade.evaluation.metrics import metrics_from_json
from saccade.pipeline.shares import Asked
from saccade.records import PARTS, Dataset, ImageRecord
from saccade.report.facts import JUDGED_FIRST, judged_part, trained_backbone
from saccade.run_folder import RunFolder
from saccade.run_record import time_of_day


def about_evaluation(
    run: RunFolder, asked: Asked, *, data: str = "", dataset: Dataset | None = None
) -> dict[str, Any]:
    """The content of `evaluation.json`, but for `known`; without `data`, of the run's own images.

    `measured` are the times at which this run measured any of these images, this one included, under any
    name, as far as its evaluations are still there: a figure that is looked at again and again to choose by
    is optimistic. `tested`: how many of them are in the run's own test part.
    """
    records = dataset.used() if dataset else ()
    return {
        "run": run.root.resolve().name,
        "backbone": trained_backbone(run.read_recipe(), run.read_record()),
        "weights_sha256": run.read_model().get("weights_sha256", ""),
        "data": os.path.abspath(data) if data and Path(data).exists() else data,
        "priors": asked.in_words if asked.given else "",
        "fingerprint": dataset.fingerprint() if dataset else "",
        "measured": [*_earlier(run, records), time_of_day()],
        "tested": len(_standing_in(run, records, "test")),
        "own": _own_figure(run),
    }


def _earlier(run: RunFolder, records: tuple[ImageRecord, ...]) -> list[str]:
    """When any of these images was measured before; a damaged record is no reason to measure nothing."""
    times: set[str] = set()
    for path in (run.root / "evaluations").glob("*/evaluation.json") if records else ():
        with contextlib.suppress(RunError):
            place = RunFolder(path.parent)
            found = place.read_about()
            if found.get("data") and _standing_in(place, records, *PARTS, ""):
                times.update(found.get("measured", ()))
    return sorted(times)


def _standing_in(run: RunFolder, records: tuple[ImageRecord, ...], *parts: str) -> list[str]:
    """Paths of those images that the run has in these parts too, under any name; "" of data without parts."""
    there = {record.sha256 for record in run.read_dataset() if record.used and record.part in parts}
    return [record.path for record in records if record.sha256 and record.sha256 in there]


def _own_figure(run: RunFolder) -> dict[str, Any]:
    """The accuracy on the run's own images, to hold the new one against; empty where there is none."""
    part = judged_part([part for part in JUDGED_FIRST if run.has(run.metrics(part))])
    if not part:
        return {}
    figures = metrics_from_json(run.read_metrics(part))
    return {"part": part, "images": figures.images, "accuracy": asdict(figures.accuracy)}


def known_images(run: RunFolder, records: tuple[ImageRecord, ...]) -> list[str]:
    """Paths of those images that stood in the run's training or validation part."""
    return _standing_in(run, records, "train", "validation")
