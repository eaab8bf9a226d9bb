"""MLflow: a database on this machine, or a server."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.errors import RecipeError
from saccade.tracking.facts import RunFacts
from saccade.tracking.tracker import SECRETS, Tracker, without_secrets

KEY = "saccade.run"  # the tag by which a run that continues is found again
SETTINGS = {  # where the user has none of his own: no usage statistics, and no minutes of trying again
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
LONGEST_VALUE, MOST_AT_ONCE = 6000, 100  # of a parameter; parameters in a request
INSTEAD = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or all of it in MLFLOW_TRACKING_URI"
KEPT = "a password or a token, and commands are kept"
HOSTED = ("databricks", "databricks-uc")  # addresses without a colon


class MLflow(Tracker):
    """`place`: an address (`http://...`, `sqlite:///...`) or a folder; "" is MLFLOW_TRACKING_URI."""

    tool, package = "mlflow", "mlflow"

    def check(self) -> None:
        if SECRETS.search(self.place):
            raise RecipeError(f"the address of MLflow holds {KEPT}", hint=INSTEAD)

    def open(self, run: RunFacts, folder: Path) -> None:
        os.environ.update({**SETTINGS, **os.environ})
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        place, files = address(self.place)
        self.where, client = without_secrets(place), MlflowClient(tracking_uri=place)
        self._client, self._run = client, found_or_made(client, run, files)
        client.update_run(self._run, status="RUNNING")
        parameters = [Param(key, value[:LONGEST_VALUE]) for key, value in run.recipe.items()]
        for start in range(0, len(parameters), MOST_AT_ONCE):
            client.log_batch(self._run, params=parameters[start : start + MOST_AT_ONCE])
        self._logged = max((m.step for m in client.get_metric_history(self._run, "seconds")), default=0)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        if epoch > self._logged:  # a run that is told again has them already
            self._client.log_batch(self._run, [Metric(key, x, now, epoch) for key, x in numbers.items()])

    def conclude(self, run: RunFacts, folder: Path) -> None:
        for name, value in run.numbers.items():
            self._client.log_metric(self._run, name, value)
        for path in run.files:
            place = path.relative_to(folder).parent.as_posix()
            self._client.log_artifact(self._run, str(path), None if place == "." else place)
        self._client.set_terminated(self._run)

    def stopped(self) -> None:
        self._client.set_terminated(self._run, "KILLED")


def found_or_made(client: Any, run: RunFacts, files: str | None) -> str:
    """The id of the run in the experiment, also of one that continues or is told again."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "") or "saccade"  # Databricks wants a path: /Users/...
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name, files)
    runs = client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'")
    made = runs[0] if runs else client.create_run(experiment, run_name=run.name, tags={KEY: run.key})
    return str(made.info.run_id)


def address(place: str) -> tuple[str, str | None]:
    """Of the tracking store, and of the files where they should lie beside it: a folder holds both.

    >>> address("http://mlflow.example.org:5000"), address("databricks")
    (('http://mlflow.example.org:5000', None), ('databricks', None))
    """
    place = place or os.environ.get("MLFLOW_TRACKING_URI", "") or "sqlite:///mlflow.db"
    if ":" in place or place in HOSTED:
        return place, None
    folder = Path(place).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri()
