"""The audit itself: every search over a scanned data set, in one place."""

from __future__ import annotations

from saccade.data.audit.classes import class_sizes
from saccade.data.audit.copies import identical_copies, same_picture, settle_conflicts
from saccade.data.audit.files import name_forms, remarks, unreadable
from saccade.data.audit.kinds import in_order
from saccade.data.audit.quality import image_quality
from saccade.data.measure import Measurements
from saccade.records import Audit, Dataset
from saccade.terminal import Progress, silent

PARTS_TO_FILL = 3


def audit(
    dataset: Dataset,
    measurements: Measurements,
    *,
    parts_to_fill: int = PARTS_TO_FILL,
    progress: Progress = silent,
) -> Audit:
    """Findings over a scanned data set, worst first; what must be set aside is set aside in `.dataset`.

    `measurements` stand in the order of the records. `parts_to_fill` is how many parts the split will
    make of unsplit data.
    """
    assert len(measurements) == len(dataset.records), "measurements stand in the order of the records"
    findings = [*unreadable(dataset), *remarks(dataset), *name_forms(dataset)]
    dataset, conflicts = settle_conflicts(dataset, kept=())
    findings += conflicts
    findings += identical_copies(dataset)
    clusters = {
        record.path: cluster for cluster, group in enumerate(same_picture(dataset.used())) for record in group
    }
    findings += class_sizes(dataset, clusters, parts_to_fill=parts_to_fill)
    findings += image_quality(dataset, measurements)
    return Audit(dataset, in_order(findings), clusters=clusters)
