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
from saccade.recipe import AUTO_BACKBONE
from saccade.records import Dataset, ImageRecord
from saccade.report.facts import judged_part
from saccade.run_folder import RunFolder
from saccade.run_record import time_of_day


def about_evaluation(
    run: RunFolder, asked: Asked, *, data: str = "", dataset: Dataset | None = None
) -> dict[str, Any]:
    """The content of `evaluation.json`, but for `known`; without `data`, of the run's own images.

    `measured` are the times at which this run measured these images, this one included, under any name:
    a figure that is looked at again and again to choose by is optimistic.
    """
    fingerprint = dataset.fingerprint() if dataset else ""
    return {
        "run": run.root.resolve().name,
        "backbone": _backbone(run),
        "weights_sha256": run.read_model().get("weights_sha256", ""),
        "data": os.path.abspath(data) if data and Path(data).exists() else data,
        "priors": asked.in_words if asked.given else "",
        "fingerprint": fingerprint,
        "measured": [*_earlier(run, fingerprint), time_of_day()],
        "own": _own_figure(run),
    }


def _backbone(run: RunFolder) -> str:
    named = run.read_recipe().model.backbone
    return str(run.read_record().choice.get("backbone", named)) if named == AUTO_BACKBONE else named


def _earlier(run: RunFolder, fingerprint: str) -> list[str]:
    """When these images were measured before; a damaged record of it is no reason to measure nothing."""
    times: set[str] = set()
    for path in (run.root / "evaluations").glob("*/evaluation.json") if fingerprint else ():
        with contextlib.suppress(RunError):
            found = RunFolder(path.parent).read_about()
            if found.get("fingerprint") == fingerprint:
                times.update(found.get("measured", ()))
    return sorted(times)


def _own_figure(run: RunFolder) -> dict[str, Any]:
    """The accuracy on the run's own images, to hold the new one against; empty where there is none."""
    part = judged_part([part for part in ("test", "validation") if run.has(run.metrics(part))])
    if not part:
        return {}
    figures = metrics_from_json(run.read_metrics(part))
    return {"part": part, "images": figures.images, "accuracy": asdict(figures.accuracy)}


def known_images(run: RunFolder, records: tuple[ImageRecord, ...]) -> list[str]:
    """Paths of those images that stood in the run's training or validation part."""
    known = {
        record.sha256
        for record in run.read_dataset()
        if record.used and record.part in ("train", "validation")
    }
    return [record.path for record in records if record.sha256 in known]
