"""An audit as plain values: what `audit.json` holds."""

from __future__ import annotations

from typing import Any

from saccade.records import Audit, Finding


def audit_as_json(audit: Audit) -> dict[str, Any]:
    """Counts and findings of an audit, worst first; only dicts, lists, strings and numbers."""
    dataset = audit.dataset
    used = len(dataset.used())
    return {
        "images": len(dataset.records),
        "used": used,
        "set_aside": len(dataset.records) - used,
        "classes": dataset.counts(),
        "worst": audit.worst,
        "findings": [_finding(found) for found in audit.findings],
    }


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "severity": found.severity,
        "confidence": found.confidence,
        "message": found.message,
        "remedy": found.remedy,
        "paths": list(found.paths),
        "figure": dict(found.figure),
    }
