"""One self-contained HTML page out of a run folder. No model, no GPU, no torch, no network."""

from saccade.report.page import report_html, write_report
from saccade.report.promises import Promise, promises

__all__ = ["Promise", "promises", "report_html", "write_report"]
