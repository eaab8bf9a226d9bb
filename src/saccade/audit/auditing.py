"""The audit itself: every search over a scanned data set, in one place."""

from __future__ import annotations

from pathlib import Path

from saccade.audit.classes import class_sizes, group_leaks
from saccade.audit.copies import identical_copies, set_aside, settle_conflicts
from saccade.audit.decisions import NO_DECISIONS, Decisions
from saccade.audit.files import name_forms, remarks, unreadable
from saccade.audit.kinds import count_of, finding, in_order, some
from saccade.audit.measure import Measurements
from saccade.audit.memory import SearchMemory
from saccade.audit.quality import image_quality
from saccade.audit.shortcuts import shortcuts
from saccade.audit.similar import find_similar, similar_findings
from saccade.records import Audit, Dataset, Finding
from saccade.terminal import Progress, silent

PARTS_TO_FILL = 3


def audit(
    dataset: Dataset,
    measurements: Measurements,
    *,
    decisions: Decisions = NO_DECISIONS,
    near_duplicates: bool = True,
    parts_to_fill: int = PARTS_TO_FILL,
    gray_maximum: int = 0,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Audit:
    """Findings over a scanned data set, worst first; what must be set aside is set aside in `.dataset`.

    `measurements` stand in the order of the records. `decisions` are a person's about an earlier audit.
    `parts_to_fill` is how many parts the split will make of unsplit data. `gray_maximum` is what
    the scan's limits say. `cache` is the scan's: with it,
    near-duplicates are searched for new images only. Raises MissingExtraError without faiss, unless
    `near_duplicates` is off.
    """
    assert len(measurements) == len(dataset.records), "measurements stand in the order of the records"
    findings = [*unreadable(dataset), *name_forms(dataset), *_decided(dataset, decisions)]
    dataset = _drop(dataset, decisions)
    findings += image_quality(dataset, measurements, accepted=decisions.kept, gray_maximum=gray_maximum)
    dataset, conflicts = settle_conflicts(dataset, decisions.kept)
    findings += [*conflicts, *remarks(dataset), *identical_copies(dataset), *group_leaks(dataset)]
    memory = SearchMemory(cache) if cache else None
    similar = find_similar(
        dataset, measurements, decisions, search=near_duplicates, memory=memory, progress=progress
    )
    findings += similar_findings(dataset, similar, decisions)
    findings += class_sizes(dataset, similar.clusters, parts_to_fill=parts_to_fill)
    findings += shortcuts(dataset, measurements, similar.clusters)
    return Audit(dataset, in_order(findings), similar.pairs, similar.clusters)


def _drop(dataset: Dataset, decisions: Decisions) -> Dataset:
    return set_aside(dataset, dict.fromkeys(decisions.dropped, "dropped by audit-decisions.csv"))


def _decided(dataset: Dataset, decisions: Decisions) -> list[Finding]:
    """What the decisions did, and which of them name files that are not there."""
    known = {record.path for record in dataset.records}
    findings = []
    if dropped := sorted(decisions.dropped & known):
        message = f"{count_of(len(dropped), 'image')} dropped by audit-decisions.csv: {some(dropped)}"
        findings.append(finding("dropped", message, paths=dropped))
    if unknown := sorted(decisions.paths - known):
        message = (
            f"audit-decisions.csv names {count_of(len(unknown), 'file')} that the data lacks: {some(unknown)}"
        )
        remedy = "Correct these paths, or delete the rows"
        findings.append(finding("decisions", message, paths=unknown, remedy=remedy))
    return findings
