"""Problems of a data set: which files, how certain, what to do. `findings.KINDS` lists all kinds."""

from saccade.audit.auditing import audit, audit_as_json, audit_from_json
from saccade.audit.findings import KINDS
from saccade.audit.parts import after_split
from saccade.audit.similar import SecondSearch

__all__ = ["KINDS", "SecondSearch", "after_split", "audit", "audit_as_json", "audit_from_json"]
