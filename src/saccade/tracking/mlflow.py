"""MLflow: a database on this machine, or a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from saccade.tracking.facts import RunFacts
from saccade.tracking.tracker import Tracker

KEY = "saccade.run"  # the tag by which a run that continues is found again
QUIETLY = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
LONGEST_VALUE = 6000  # of a parameter


class MLflow(Tracker):
    """`place`: an address (`http://...`, `sqlite:///...`) or a folder; "" is MLFLOW_TRACKING_URI."""

    tool, package = "mlflow", "mlflow"

    def open(self, run: RunFacts, folder: Path) -> None:
        for name, value in QUIETLY.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        self.where, files = address(self.place)
        self._client = client = MlflowClient(tracking_uri=self.where)
        found = client.get_experiment_by_name("saccade")
        experiment = found.experiment_id if found else client.create_experiment("saccade", files)
        runs = client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'")
        made = runs[0] if runs else client.create_run(experiment, run_name=run.name, tags={KEY: run.key})
        self._run = made.info.run_id
        client.update_run(self._run, status="RUNNING")
        for key, value in run.recipe.items():
            client.log_param(self._run, key, value[:LONGEST_VALUE])
        known = client.get_metric_history(self._run, "seconds")
        self._logged = max((metric.step for metric in known), default=0)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        for name, value in numbers.items() if epoch > self._logged else ():
            self._client.log_metric(self._run, name, value, step=epoch)

    def conclude(self, run: RunFacts, folder: Path) -> None:
        for name, value in run.numbers.items():
            self._client.log_metric(self._run, name, value)
        for path in run.files:
            place = path.relative_to(folder).parent
            self._client.log_artifact(self._run, str(path), None if place == Path() else place.as_posix())
        self._client.set_terminated(self._run)

    def stopped(self) -> None:
        self._client.set_terminated(self._run, "KILLED")


def address(place: str) -> tuple[str, str | None]:
    """Of the tracking store, and of the files where they should lie beside it: a folder holds both.

    >>> address("http://mlflow.example.org:5000")
    ('http://mlflow.example.org:5000', None)
    """
    place = place or os.environ.get("MLFLOW_TRACKING_URI", "") or "sqlite:///mlflow.db"
    if ":" in place:
        return place, None
    folder = Path(place).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri()
