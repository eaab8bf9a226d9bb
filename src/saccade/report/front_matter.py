"""The block of YAML above a model card, as the Hugging Face Hub reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.evaluation.shown import Shown, every_figure
from saccade.report.facts import Facts
from saccade.report.origins import UNKNOWN, Weights, data_name, one_line, weights_of

TASK = "image-classification"
HUB_METRICS = {"Accuracy": "accuracy", "Macro F1": "f1"}  # as the Hub names them; others by their own name


def front_matter(facts: Facts, *, library: str) -> str:
    """Licence, tags, base model and results, between two lines of dashes.

    Every text is quoted as JSON quotes it, which YAML reads. Source: the Hub's "Model cards" and its
    specification of model-index.
    """
    weights = weights_of(facts)
    values = {
        **_licence(weights),
        **({"base_model": weights.hub_name} if weights and weights.hub_name else {}),
        "library_name": library,
        "pipeline_tag": TASK,
        "tags": [TASK, "saccade"],
        **_results(facts),
    }
    return "\n".join(["---", *_block(values, ""), "---"])


def _licence(weights: Weights | None) -> dict[str, str]:
    """That of the pretrained weights; nothing where there are none, or none is stated."""
    if weights is None or not weights.licence:
        return {}
    if weights.spdx or weights.licence == UNKNOWN:
        return {"license": weights.licence.lower()}
    return {
        "license": "other",
        "license_name": re.sub(r"[^a-z0-9.]+", "-", weights.licence.lower()).strip("-"),
    }


def _results(facts: Facts) -> dict[str, Any]:
    if facts.figures is None:
        return {}
    dataset = {"type": "imagefolder", "name": data_name(facts), "split": facts.part}
    if fingerprint := facts.model.get("data_fingerprint"):
        dataset["revision"] = str(fingerprint)
    result = {
        "task": {"type": TASK, "name": "Image classification"},
        "dataset": dataset,
        "metrics": [_metric(row, facts.figures.images) for row in every_figure(facts.figures)],
    }
    return {"model-index": [{"name": one_line(facts.name), "results": [result]}]}


def _metric(row: Shown, images: int) -> dict[str, Any]:
    kind = HUB_METRICS.get(row.name) or re.sub(r"[^a-z0-9]+", "_", row.name.lower()).strip("_")
    range_ = f"95 % interval {row.interval[0]:.4f} to {row.interval[1]:.4f}, " if row.interval else ""
    return {"type": kind, "value": float(row.value), "name": f"{row.name} ({range_}{images} images)"}


def _block(value: Mapping[str, Any] | Sequence[Any], indent: str) -> list[str]:
    """The lines of a mapping or a list, in YAML's block style."""
    lines: list[str] = []
    entries = [("- ", one) for one in value]
    if isinstance(value, Mapping):
        entries = [(f"{key}: ", one) for key, one in value.items()]
    for head, one in entries:
        if isinstance(one, Mapping) and head == "- ":
            first, *rest = _block(one, f"{indent}  ")
            lines += [f"{indent}- {first.lstrip()}", *rest]
        elif isinstance(one, Mapping | list):
            lines += [
                f"{indent}{head.rstrip()}",
                *_block(one, indent + ("  " if isinstance(one, Mapping) else "")),
            ]
        else:
            lines.append(f"{indent}{head}{_scalar(one)}")
    return lines


def _scalar(value: Any) -> str:
    """A number with a point, which YAML takes for no text; or a text in quotes."""
    return f"{value:.6f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
