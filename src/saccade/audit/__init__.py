"""What is wrong with a data set: which files, how sure, what to do. The kinds stand in `kinds.KINDS`."""

from saccade.audit.as_json import audit_as_json
from saccade.audit.auditing import audit
from saccade.audit.kinds import KINDS
from saccade.audit.similar import SecondSearch

__all__ = ["KINDS", "SecondSearch", "audit", "audit_as_json"]
