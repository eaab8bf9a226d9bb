"""Rankings from run folders alone: who is compared with whom, and what is said of the rest."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from saccade.errors import RecipeError, RunError
from saccade.evaluation.calibration import softmax
from saccade.evaluation.compare import metric_tests
from saccade.evaluation.groups import Groups
from saccade.evaluation.metrics import METRICS, measure, metrics_as_json
from saccade.pipeline.leaderboard import leaderboard
from saccade.records import ImageRecord, Predictions
from saccade.run_folder import RunFolder
from saccade.run_record import RunRecord
from saccade.terminal import Terminal

CLASSES = ("cat", "dog")
IMAGES = 60


def predictions(wrong: int, *, sure: float = 2.0, images: int = IMAGES) -> Predictions:
    truth = [CLASSES[i % 2] for i in range(images)]
    logits = np.where(np.array(truth)[:, None] == np.array(CLASSES), sure, 0.0)
    logits[:wrong] = -logits[:wrong]
    paths = tuple(f"{i:03d}.png" for i in range(images))
    return Predictions(paths, tuple(truth), CLASSES, softmax(logits, 1.0))


def made(root: Path, wrong: int, *, finished: bool = True, salt: str = "", sure: float = 2.0) -> RunFolder:
    run = RunFolder(root)
    run.root.mkdir(parents=True)
    run.write(run.recipe, b"")
    run.write_record(RunRecord(finished=finished, seconds=10.0 + wrong))
    found = predictions(wrong, sure=sure)
    run.write_predictions("test", found)
    run.write_metrics("test", metrics_as_json(measure(found)))
    pairs = zip(found.paths, found.labels, strict=True)
    run.write_dataset(ImageRecord(path, label, "test", sha256=f"{salt}{path}") for path, label in pairs)
    return run


def said(*places: Path | str, **options: str) -> str:
    stream = io.StringIO()
    leaderboard([str(place) for place in places], Terminal(stream=stream), **options)
    return stream.getvalue()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    made(root / "good", 2)
    made(root / "close", 3)
    made(root / "deep" / "bad", 25)
    made(root / "elsewhere", 0, salt="other images ")
    made(root / "begun", 0, finished=False)
    damaged = made(root / "damaged", 0)
    damaged.predictions("test").write_text("path\n")
    return root


def test_runs_on_the_same_images_are_ranked_and_those_like_the_best_marked(runs: Path) -> None:
    text = said(runs)
    assert "3 runs by accuracy on 60 test images" in text
    places = {Path(line.split()[1]).name: line.split()[0] for line in text.splitlines() if str(runs) in line}
    assert (places["good"], places["close"], places["bad"]) == ("1", "=", "3")
    assert "= cannot be told from the best on these images (paired test): 1 run." in text
    assert "1 run by accuracy on 60 test images" in text
    assert text.index("/good") < text.index("/close") < text.index("/bad") < text.index("/elsewhere")
    assert "96.7 % (88.6 to 99.1)" in text


def test_what_is_not_ranked_is_named(runs: Path) -> None:
    rest = said(runs).partition("Not ranked:")[2]
    assert f"{runs}/begun: not finished" in rest
    assert f"{runs}/damaged: " in rest
    assert "is damaged" in rest
    assert "good" not in rest


def test_a_pattern_or_names_choose_among_the_runs(runs: Path) -> None:
    assert "2 runs by accuracy" in said(f"{runs}/[gc]*")
    assert "2 runs by accuracy" in said(runs / "good", runs / "deep", runs / "good")
    assert "Not ranked:\n  nowhere: no run folder there" in said(runs / "good", "nowhere")


def test_another_figure_ranks_in_its_own_direction(tmp_path: Path) -> None:
    made(tmp_path / "sure", 2, sure=8.0)
    made(tmp_path / "modest", 3, sure=2.0)
    by_loss, by_accuracy = said(tmp_path, by="log_loss"), said(tmp_path)
    assert by_accuracy.index("/sure") < by_accuracy.index("/modest")
    assert by_loss.index("/modest") < by_loss.index("/sure")


def test_figures_that_are_no_share_have_a_paired_test() -> None:
    models = [predictions(2), predictions(2), predictions(25)]
    for name in ("balanced_accuracy", "macro_f1", "log_loss", "cohen_kappa"):
        same, other = metric_tests(METRICS[name].of, models, Groups.alone(IMAGES))
        assert same == 1.0
        assert other < 0.001, name
    patients = Groups.named([f"{i // 30}" for i in range(IMAGES)])
    assert metric_tests(METRICS["log_loss"].of, [models[0], models[2]], patients)[0] > other


def test_the_tables_hold_what_was_said(runs: Path, tmp_path: Path) -> None:
    said(runs, out=str(tmp_path / "board.csv"))
    with (tmp_path / "board.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["run"]).name for row in rows] == ["good", "close", "bad", "elsewhere"]
    assert [row["place"] for row in rows] == ["1", "=", "3", "1"]
    assert len({row["fingerprint"] for row in rows}) == 2
    assert float(rows[2]["p_value"]) < 0.001
    assert rows[0]["seconds"] == "12.0"
    said(runs, out=str(tmp_path / "board.html"))
    page = (tmp_path / "board.html").read_text("utf-8")
    assert "2 rankings" in page
    assert "Not ranked" in page


def test_what_cannot_be_ranked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder in"):
        said(tmp_path)
    with pytest.raises(RecipeError, match=r"no such figure\nhint: did you mean macro_f1\?"):
        said(tmp_path, by="macro_f")
