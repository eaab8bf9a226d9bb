"""Experiment trackers: what they were told is read back by their own means, and training never notices."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import pytest

from saccade.cli import main
from saccade.errors import MissingExtraError, RecipeError
from saccade.records import EpochRow
from saccade.run_folder import RunFolder
from saccade.tracking import TRACKERS, MLflow, TensorBoard, Tracker, WandB, tracker
from saccade.tracking.facts import RunFacts, epoch_figures, facts_of
from saccade.tracking.tracker import without_secrets
from saccade.training import Callback

pytestmark = pytest.mark.filterwarnings("default")  # the tools warn of what they use themselves

TRAIN = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "2", "--batch-size", "16")


def needs(tool: str) -> None:
    if importlib.util.find_spec(TRACKERS[tool].package) is None:
        pytest.skip(f"needs {tool}: pip install 'saccade[{tool}]'")


class Runs(NamedTuple):
    """One run that nobody watched, and one that all installed trackers did; `home` holds what they wrote."""

    plain: RunFolder
    watched: RunFolder
    home: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Iterator[Runs]:
    home = tmp_path_factory.mktemp("tracked")
    photos = photo_writer(home / "photos")
    here = [tool for tool in TRACKERS if importlib.util.find_spec(TRACKERS[tool].package)]
    places = {"tensorboard": home / "logs", "mlflow": home / "ml", "wandb": "flowers"}
    flags = [word for tool in here for word in ("--track", f"{tool}:{places[tool]}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.delenv("SACCADE_CACHE", raising=False)
        patch.delenv("WANDB_MODE", raising=False)
        patch.setenv("WANDB_DIR", str(home))
        patch.chdir(home)
        assert main(["train", str(photos), "--out", "plain", *TRAIN]) == 0
        assert main(["train", str(photos), "--out", "watched", *TRAIN, *flags]) == 0
        yield Runs(RunFolder(home / "plain"), RunFolder(home / "watched"), home)


def test_weights_and_history_are_the_same_with_and_without(runs: Runs) -> None:
    assert runs.plain.weights.read_bytes() == runs.watched.weights.read_bytes()
    for ours, theirs in zip(runs.plain.read_history(), runs.watched.read_history(), strict=True):
        assert timeless(ours) == timeless(theirs)
    assert runs.plain.read_metrics("test") == runs.watched.read_metrics("test")
    promises = runs.watched.read_record().promises
    assert promises["10"]["kept"] == runs.plain.read_record().promises["10"]["kept"]


def timeless(row: EpochRow) -> dict[str, float]:
    return {name: value for name, value in epoch_figures(row).items() if name != "seconds"}


# -- each tool, read back -----------------------------------------------------------------------------


def scalars(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def check_scalars(found: Any, run: RunFolder) -> None:
    rows = run.read_history()
    assert len(rows) == 2
    losses = [(event.step, event.value) for event in found.Scalars("validation/loss")]
    assert losses == [(row.epoch, pytest.approx(row.validation_loss)) for row in rows]
    accuracy = run.read_metrics("test")["accuracy"]
    for name, end in (("", "value"), ("_low", "low"), ("_high", "high")):
        assert found.Scalars(f"test/accuracy{name}")[0].value == pytest.approx(accuracy[end])


def test_tensorboard_has_epochs_metrics_with_intervals_and_the_recipe(runs: Runs) -> None:
    needs("tensorboard")
    found = scalars(runs.home / "logs" / "watched")
    check_scalars(found, runs.watched)
    recipe = found.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| train.epochs | 2 |" in recipe
    assert "report.html" in found.Tensors("files/text_summary")[0].tensor_proto.string_val[0].decode()


def test_mlflow_has_epochs_metrics_parameters_and_files(runs: Runs) -> None:
    needs("mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{runs.home}/ml/mlflow.db")
    experiment = client.get_experiment_by_name("saccade")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("watched", "FINISHED")
    assert found.data.params["train.epochs"] == "2"
    history = client.get_metric_history(found.info.run_id, "validation/loss")
    rows = runs.watched.read_history()
    assert [(point.step, point.value) for point in history] == [
        (row.epoch, row.validation_loss) for row in rows
    ]
    accuracy = runs.watched.read_metrics("test")["accuracy"]
    assert found.data.metrics["test/accuracy_low"] == accuracy["low"]
    assert {file.path for file in client.list_artifacts(found.info.run_id, "export")} == {
        "export/certificate.json",
        "export/model.onnx",
    }
    assert client.list_artifacts(found.info.run_id, "report")[0].path == "report/report.html"


def wandb_records(folder: Path) -> list[Any]:
    """Of the one `.wandb` file: after 7 bytes, LevelDB's log format of serialized records."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.rglob("run-*.wandb")
    data, at, whole, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of it, or its last piece
            records.append(Record.FromString(whole))
            whole = b""
    return records


def test_wandb_has_it_all_offline(runs: Runs) -> None:
    needs("wandb")
    (folder,) = runs.home.glob("wandb/offline-run-*")
    records = wandb_records(folder)
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
    assert (run.project, run.display_name) == ("flowers", "watched")
    assert json.loads({item.key: item.value_json for item in run.config.update}["train.epochs"]) == "2"
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    expected = runs.watched.read_history()
    assert [row["validation/loss"] for row in rows] == [row.validation_loss for row in expected]
    said = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    assert said["test/accuracy_high"] == runs.watched.read_metrics("test")["accuracy"]["high"]


# -- afterwards ---------------------------------------------------------------------------------------


def test_a_finished_run_is_told_afterwards(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("tensorboard")
    for _ in range(2):  # a second time replaces the epochs of the first
        assert main(["track", str(runs.plain.root), "--to", f"tensorboard:{tmp_path}"]) == 0
    assert f"in {tmp_path / 'plain'}" in capsys.readouterr().out
    check_scalars(scalars(tmp_path / "plain"), runs.plain)


def test_mlflow_knows_a_run_again(runs: Runs) -> None:
    needs("mlflow")
    from mlflow.tracking import MlflowClient

    for _ in range(2):
        assert main(["track", str(runs.plain.root), "--to", f"mlflow:{runs.home / 'again'}"]) == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{runs.home}/again/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("saccade").experiment_id])
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 2


def test_a_run_keeps_its_key_where_it_is_moved_and_another_has_its_own(runs: Runs, tmp_path: Path) -> None:
    before = facts_of(runs.watched.root)
    assert before.key != facts_of(runs.plain.root).key
    moved = runs.watched.root.rename(tmp_path / "moved")
    assert facts_of(moved).key == before.key
    moved.rename(runs.watched.root)


def test_an_unfinished_run_is_not_told(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("tensorboard")
    run = RunFolder(Path(shutil.copytree(runs.plain.root, tmp_path / "run")))
    run.write_record(run.read_record().replaced(finished=False))
    assert main(["track", str(run.root), "--to", "tensorboard"]) == 2
    assert "is not finished\nhint: continue it: saccade train --resume" in capsys.readouterr().err


# -- what must not happen -----------------------------------------------------------------------------


class Broken(Tracker):
    """Its package is always there, and it fails in one moment."""

    tool, package = "broken", "json"

    def __init__(self, moment: str) -> None:
        super().__init__()
        self.moment, self.asked = moment, []

    def _fail(self, moment: str) -> None:
        self.asked.append(moment)
        if moment == self.moment:
            raise ConnectionError("https://me:se/cret@ml.org\nis away")

    def open(self, run: Any, folder: Path) -> None:
        self._fail("open")

    def log(self, numbers: Any, epoch: int) -> None:
        self._fail("log")

    def conclude(self, run: Any, folder: Path) -> None:
        self._fail("conclude")


@pytest.mark.parametrize("moment", ["open", "log", "conclude"])
def test_a_tracker_that_fails_is_left_and_training_goes_on(
    moment: str, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken(moment)
    broken.on_begin(runs.plain.root)
    for row in runs.plain.read_history():
        broken.on_epoch_end(None, row)
    broken.on_conclude(runs.plain.root)
    assert broken.asked.index(moment) == len(broken.asked) - 1
    told = capsys.readouterr().err
    assert told.count("warning") == 1
    assert "tracking with broken ended: ConnectionError: https://ml.org is away" in told


def test_a_callback_sees_the_folder_at_the_beginning_and_the_finished_run(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    from saccade import ImageClassifier

    class Noting(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[str, Path, bool]] = []

        def on_begin(self, folder: Path) -> None:
            self.seen.append(("begin", folder, RunFolder(folder).read_record().finished))

        def on_close(self) -> None:
            self.seen.append(("close", Path(), False))

        def on_conclude(self, folder: Path) -> None:
            self.seen.append(("conclude", folder, RunFolder(folder).read_record().finished))

    noting, out = Noting(), tmp_path / "run"
    options = {"backbone": "small_cnn", "image_size": 16, "epochs": 1, "batch_size": 16}
    ImageClassifier(**options, out=str(out), callbacks=[noting]).fit(make_photos())
    assert noting.seen == [("begin", out, False), ("close", Path(), False), ("conclude", out, True)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("neptune:x", "unknown tracker 'neptune' in 'neptune:x'\nhint: choose from: tensorboard"),
        *(
            (f"mlflow:https://{who}@example.org", "holds a password or a token, .*\nhint: set MLFLOW_")
            for who in ("me:secret", "me:se/cret", "token")
        ),
        ("mlflow", r"needs the package 'no_such_package'.*\nhint: pip install 'saccade\[mlflow\]'"),
    ],
)
def test_what_cannot_be_had_is_refused_before_images_are_read(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    monkeypatch.setattr(MLflow, "package", "json" if "@" in words else "no_such_package")
    assert main(["train", str(tmp_path / "no_photos"), "--track", words]) == 2
    assert re.search(told, capsys.readouterr().err)


def test_names_and_places() -> None:
    with pytest.raises(RecipeError, match="unknown tracker"):
        tracker("")
    if importlib.util.find_spec("tensorboard"):
        assert tracker("tensorboard:C:/logs").place == "C:/logs"
        assert isinstance(tracker("tensorboard"), TensorBoard)
    else:
        with pytest.raises(MissingExtraError, match=r"saccade\[tensorboard\]"):
            tracker("tensorboard")


def test_what_is_said_of_an_address_holds_no_secret() -> None:
    assert without_secrets("sqlite:////home/me@work/mlflow.db") == "sqlite:////home/me@work/mlflow.db"
    assert without_secrets("https://a:b@c@d.org and http://t@e.org/f") == "https://d.org and http://e.org/f"


def test_databricks_is_an_address_and_its_experiment_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.tracking.mlflow import address, found_or_made

    class Client:
        made: ClassVar[list[str]] = []

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str, files: str | None) -> str:
            self.made.append(name)
            return "1"

        def search_runs(self, *_: object) -> list[Any]:
            return []

        def create_run(self, *_: object, **__: object) -> Any:
            return SimpleNamespace(info=SimpleNamespace(run_id="7"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "/Users/me/saccade")
    assert address("") == ("databricks", None)
    assert not [*tmp_path.iterdir()]
    assert found_or_made(Client(), RunFacts("run", "key", {}, {}, ()), None) == "7"
    assert Client.made == ["/Users/me/saccade"]


def test_each_is_a_callback_of_at_most_forty_lines() -> None:
    import inspect

    assert set(TRACKERS.values()) == {TensorBoard, MLflow, WandB}
    for kind in TRACKERS.values():
        assert issubclass(kind, Callback)
        assert len(inspect.getsource(kind).splitlines()) <= 40


def test_importing_saccade_imports_no_tracker() -> None:
    code = (
        "import sys, saccade; saccade.tracking.MLflow;"
        "print({'tensorboard', 'mlflow', 'wandb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_numbers_that_are_none_are_left_out() -> None:
    row = EpochRow("head", 1, 0.0, 0.5, 0.75, math.nan, 0.5, 3.0)
    assert epoch_figures(row) == {
        "lr": 0.0,
        "train/loss": 0.5,
        "train/accuracy": 0.75,
        "validation/accuracy": 0.5,
        "seconds": 3.0,
    }
