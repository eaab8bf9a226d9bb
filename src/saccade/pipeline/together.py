"""Which images of a part belong together: their intervals then go by group, not by image."""

from __future__ import annotations

from saccade.pipeline.division import with_clusters
from saccade.records import Audit
from saccade.run_folder import RunFolder
from saccade.split.atoms import gather_atoms, linked_pairs


def together_in_run(run: RunFolder) -> dict[str, str]:
    """A name by path for what the split kept together: declared groups, copies, near-duplicates."""
    clusters = run.read_audit().get("clusters", {}) if run.has(run.audit) else {}
    return {record.path: record.unit for record in with_clusters(run.read_dataset(), clusters) if record.used}


def together_in_data(audit: Audit) -> dict[str, str]:
    """The same of data that were audited but not divided."""
    records = audit.dataset.used()
    atoms = gather_atoms(records, audit.clusters, seed=0, pairs=linked_pairs(audit))
    return {records[i].path: str(number) for number, atom in enumerate(atoms) for i in atom.members}
