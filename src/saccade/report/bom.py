"""`bom.json`: the model, what it was made of and how well it does, as a CycloneDX bill of materials.

Source: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json. Libraries that write CycloneDX leave out its
modelCard, so it is put together here.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

from saccade.evaluation.shown import Shown, every_figure
from saccade.records import Metrics
from saccade.report.cover import header
from saccade.report.facts import Facts
from saccade.report.origins import Weights, data_name, images_by_part, one_line, weights_of, without_folders
from saccade.report.promises import promises

SPECIFICATION = "1.6"
MODEL, DATASET, WEIGHTS = "model", "dataset", "pretrained-weights"  # how the parts name each other
CLASS_FIGURES = ("precision", "recall", "f1")
SHA256 = re.compile(r"[a-f0-9]{64}")  # what the schema takes for one


def bill_of_materials(facts: Facts) -> dict[str, Any]:
    """The content of `bom.json`; the same facts give the same, its time is that at which the run began."""
    weights = weights_of(facts)
    parts = [_model(facts), _dataset(facts), *([_weights(weights)] if weights else []), *_libraries(facts)]
    others = [part["bom-ref"] for part in parts[1:]]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{_serial_number(facts)}",
        "version": 1,
        "metadata": _metadata(facts),
        "components": parts,
        "dependencies": [
            {"ref": MODEL, "dependsOn": others},
            *({"ref": other, "dependsOn": []} for other in others),
        ],
    }


def _serial_number(facts: Facts) -> uuid.UUID:
    """A function of the model and its data, so that a run that is repeated has it, too."""
    identity = "\0".join((_model_sha256(facts), str(facts.model.get("data_fingerprint", "")), facts.name))
    return uuid.UUID(
        bytes=hashlib.sha256(identity.encode("utf-8", "surrogateescape")).digest()[:16], version=5
    )


def _metadata(facts: Facts) -> dict[str, Any]:
    tool = {"type": "application", "name": "saccade", **_version(facts.record.versions.get("saccade", ""))}
    began = {"timestamp": facts.record.began} if facts.record.began else {}
    return {**began, "tools": {"components": [tool]}}


def _version(text: str) -> dict[str, str]:
    return {"version": one_line(text)} if text else {}


# -- components ------------------------------------------------------------------------------------------


def _model_sha256(facts: Facts) -> str:
    """Of the exported file; of the weights where none was exported."""
    return str(facts.certificate.get("sha256") or facts.model.get("weights_sha256", ""))


def _hashes(sha256: str) -> dict[str, Any]:
    return {"hashes": [{"alg": "SHA-256", "content": sha256}]} if SHA256.fullmatch(sha256) else {}


def _model(facts: Facts) -> dict[str, Any]:
    file = "model.onnx" if facts.certificate.get("sha256") else "weights.safetensors"
    values = {"saccade:file": file, "saccade:weights_sha256": str(facts.model.get("weights_sha256", ""))}
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": one_line(facts.name),
        "description": f"image classifier, {one_line(dict(header(facts)).get('Model', ''))}".rstrip(", "),
        **_hashes(_model_sha256(facts)),
        "modelCard": _model_card(facts),
        "properties": _properties(values),
    }


def _dataset(facts: Facts) -> dict[str, Any]:
    counts = images_by_part(facts)
    values = {
        "saccade:data_fingerprint": str(facts.model.get("data_fingerprint", "")),
        **{f"saccade:images:{part}": str(images) for part, images in counts.items()},
    }
    name = data_name(facts)
    contents = {"properties": _properties(values)}
    return {
        "type": "data",
        "bom-ref": DATASET,
        "name": name,
        "data": [{"type": "dataset", "name": name, "contents": contents}],
        "properties": _properties(values),
    }


def _weights(weights: Weights) -> dict[str, Any]:
    name, version = weights.name_and_version
    licence = {"id": weights.spdx} if weights.spdx else {"name": one_line(weights.licence)}
    return {
        "type": "machine-learning-model",
        "bom-ref": WEIGHTS,
        "name": one_line(name),
        **_version(version),
        "description": "pretrained weights, from which training began",
        **_hashes(weights.sha256),
        **({"licenses": [{"license": licence}]} if weights.licence else {}),
    }


def _libraries(facts: Facts) -> list[dict[str, Any]]:
    """Those with which the run was made, as `environment.json` has them."""
    return [
        {
            "type": "platform" if name == "python" else "library",
            "bom-ref": f"library:{name}",
            "name": name,
            "version": version,
            "purl": f"pkg:{'generic' if name == 'python' else 'pypi'}/{name}@{version.replace('+', '%2B')}",
        }
        for name, version in facts.record.versions.items()
    ]


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": one_line(value)} for name, value in values.items() if value]


# -- the model card --------------------------------------------------------------------------------------


def _model_card(facts: Facts) -> dict[str, Any]:
    architecture = str(facts.model.get("architecture", {}).get("backbone") or facts.backbone)
    parameters = {
        "approach": {"type": "supervised"},
        "task": "image classification",
        **({"modelArchitecture": one_line(architecture)} if architecture else {}),
        "datasets": [{"ref": DATASET}],
        "inputs": [{"format": "image"}],
        "outputs": [{"format": "probability of each class"}],
    }
    figures = {"quantitativeAnalysis": {"performanceMetrics": _figures(facts)}} if facts.figures else {}
    return {
        "modelParameters": parameters,
        **figures,
        "considerations": {"technicalLimitations": _limits(facts)},
    }


def _figures(facts: Facts) -> list[dict[str, Any]]:
    """Every figure of the judged part, then those of each class."""
    assert facts.figures is not None, "the run has figures"
    part = f"{facts.images_word}, {facts.figures.images} images"
    return [*(_figure(row, part) for row in every_figure(facts.figures)), *_of_classes(facts.figures, part)]


def _of_classes(figures: Metrics, part: str) -> list[dict[str, Any]]:
    intervals = figures.extra.get("intervals", {})
    return [
        _figure(
            Shown(name, getattr(row, name), (intervals.get(name) or [None] * len(figures.per_class))[place]),
            f"{part}, class {one_line(row.label)} ({row.support})",
        )
        for place, row in enumerate(figures.per_class)
        for name in CLASS_FIGURES
    ]


def _figure(row: Shown, part: str) -> dict[str, Any]:
    """Values are texts in this format."""
    bounds = dict(zip(("lowerBound", "upperBound"), map(str, row.interval or ()), strict=False))
    return {
        "type": row.name,
        "value": str(row.value),
        "slice": part,
        **({"confidenceInterval": bounds} if bounds else {}),
    }


def _limits(facts: Facts) -> list[str]:
    """What the diagnosis found, and broken promises."""
    said = [limit.message for limit in facts.limits]
    block = promises(facts.record.promises)
    said += [f"{promise.title}: broken. {promise.evidence}" for promise in block if promise.state == "broken"]
    return [one_line(without_folders(text, facts)) for text in said]
