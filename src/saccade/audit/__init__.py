"""What is wrong with a data set: which files, how sure, what to do. The kinds stand in `findings.KINDS`."""

from saccade.audit.auditing import audit, audit_as_json
from saccade.audit.findings import KINDS
from saccade.audit.similar import SecondSearch

__all__ = ["KINDS", "SecondSearch", "audit", "audit_as_json"]
