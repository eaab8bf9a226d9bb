"""One function a stage; the only place where stages meet. The command line and Python both call these."""

from saccade.pipeline.bench import bench
from saccade.pipeline.compare import compare
from saccade.pipeline.full_report import report
from saccade.pipeline.index import index
from saccade.pipeline.leaderboard import leaderboard
from saccade.pipeline.look import augment_preview, list_backbones, summarize
from saccade.pipeline.planning import plan
from saccade.pipeline.prepare import audit_data, split_data
from saccade.pipeline.rates import find_rates
from saccade.pipeline.reevaluate import evaluate
from saccade.pipeline.replay import replay
from saccade.pipeline.ship import certify, export
from saccade.pipeline.track import track
from saccade.pipeline.train import TrainResult, resume, train

__all__ = [
    "TrainResult",
    "audit_data",
    "augment_preview",
    "bench",
    "certify",
    "compare",
    "evaluate",
    "export",
    "find_rates",
    "index",
    "leaderboard",
    "list_backbones",
    "plan",
    "replay",
    "report",
    "resume",
    "split_data",
    "summarize",
    "track",
    "train",
]
