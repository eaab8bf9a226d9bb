"""What is wrong with a data set: which files, how sure, what to do. The kinds stand in `kinds.KINDS`."""

from saccade.data.audit.as_json import audit_as_json
from saccade.data.audit.auditing import audit
from saccade.data.audit.kinds import KINDS
from saccade.data.audit.similar import SecondSearch

__all__ = ["KINDS", "SecondSearch", "audit", "audit_as_json"]
