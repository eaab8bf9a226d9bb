"""Runs compared from their folders: what is said, and written as a table and a page."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saccade.errors import RecipeError, RunError
from saccade.evaluation.calibration import softmax
from saccade.pipeline.compare import compare
from saccade.records import ImageRecord, Predictions
from saccade.report.facts import read_facts
from saccade.run_folder import RunFolder
from saccade.run_record import RunRecord
from saccade.terminal import Terminal

CLASSES = ("cat", "<b>dog</b>")
IMAGES = 40


def made(root: Path, *, wrong: int, prefix: str = "", images: int = IMAGES, labels: str = "") -> RunFolder:
    """A run whose first images are wrong; labels: of the first image, where it is another."""
    run = RunFolder(root)
    run.root.mkdir(parents=True)
    run.write(run.recipe, b"")
    run.write_record(RunRecord(data=str(root / "gone"), seconds=75.0, finished=True))
    truth = [CLASSES[i % 2] for i in range(images)]
    paths = tuple(f"{prefix}{i:03d}.png" for i in range(images))
    logits = np.where(np.array(truth)[:, None] == np.array(CLASSES), 2.0, 0.0)
    logits[:wrong] = -logits[:wrong] + np.arange(wrong)[:, None] / 100
    own = (labels or truth[0], *truth[1:])
    run.write_predictions("test", Predictions(paths, own, CLASSES, softmax(logits, 1.0)))
    records = [
        ImageRecord(path, label, "test", sha256=f"{i:064d}")
        for i, (path, label) in enumerate(zip(paths, own, strict=True))
    ]
    run.write_dataset(records)
    run.write(run.onnx, b"x" * 1_500_000)
    return run


def said(*runs: RunFolder, out: Path | None = None) -> str:
    stream = io.StringIO()
    compare([str(run.root) for run in runs], Terminal(stream=stream), out=str(out) if out else "")
    return stream.getvalue()


def test_time_size_and_latency_stand_beside_the_accuracy(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one", wrong=10), made(tmp_path / "other", wrong=0)
    rows = [
        {"precision": "float32", "latency_p50_ms": 8.25, "passed": True},
        {"precision": "int8", "latency_p50_ms": 2.0, "passed": True},
    ]
    (other.root / "bench.json").write_text(json.dumps({"rows": rows}))
    text = said(one, other)
    assert f"{one.root}" in text
    assert "75.0 % (59.8 to 85.8)        75 s    1.5      -" in text
    assert "100.0 % (91.2 to 100.0)      75 s    1.5    8.2" in text
    assert f"{other.root} is better than {one.root} by 25.0 points" in text
    assert f"10 images changed sides: 10 only {other.root} gets right, 0 only {one.root}:" in text
    assert f"000.png: cat; {one.root} says <b>dog</b> (88%), {other.root} says cat (88%)" in text


def test_at_most_twenty_images_are_said_and_all_written(tmp_path: Path) -> None:
    runs = [made(tmp_path / name, wrong=wrong) for name, wrong in (("a", 30), ("b", 0), ("c", 3))]
    text = said(*runs, out=tmp_path / "changed.csv")
    assert text.count(" says ") == 2 * 20
    assert "and 20 more" in text
    assert "corrected by Holm for 2 comparisons" in text
    with (tmp_path / "changed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 + 27
    assert {row["second"] for row in rows} == {str(run.root) for run in runs[1:]}
    assert {row["right"] for row in rows} == {"second"}


def test_the_page_has_the_verdict_and_every_name_as_text(tmp_path: Path) -> None:
    runs = [made(tmp_path / name, wrong=wrong) for name, wrong in (("a<i>", 12), ("b", 0))]
    said(*runs, out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "is better than" in page
    assert "12 only" in page
    assert "&lt;b&gt;dog&lt;/b&gt;" in page
    assert "<b>dog" not in page
    assert "a<i>" not in page


def test_other_images_and_labels_are_said(tmp_path: Path) -> None:
    one = made(tmp_path / "one", wrong=0)
    other = made(tmp_path / "other", wrong=0, prefix="moved/", images=30, labels=CLASSES[1])
    text = said(one, other)
    assert f"Compared on 30 test images that all were measured on; left out: 10 of {one.root}." in text
    assert f"1 image had another label in {other.root} than in {one.root} (000.png)" in text


def test_after_decisions_all_are_judged_by_the_new_label(tmp_path: Path) -> None:
    old = made(tmp_path / "old", wrong=0)
    new = made(tmp_path / "new", wrong=0, labels=CLASSES[1])
    labels = {"000.png": list(CLASSES)}
    new.write_audit({"findings": [{"kind": "relabelled", "paths": [*labels], "figure": {"labels": labels}}]})
    text = said(old, new)
    assert "(000.png): judged by the label that was decided on" in text
    assert "Without the images that were decided about: No real difference shown with 39 images" in text
    assert text.count("97.5 % (") == 2, "both say what the label was"


def test_groups_of_the_run_count_as_one(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one", wrong=8), made(tmp_path / "other", wrong=0)
    assert "is better than" in said(one, other)
    one.write_dataset(replace(r, group=f"patient {i // 8}") for i, r in enumerate(one.read_dataset()))
    text = said(one, other)
    assert "No real difference" in text
    assert "exact McNemar by 5 groups" in text


def test_an_evaluation_is_compared_with_what_its_run_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = made(tmp_path / "one", wrong=0), made(tmp_path / "other", wrong=2)
    place = one.evaluation("new")
    place.begin_again(())
    place.write_predictions("test", other.read_predictions("test"))
    place.write_dataset(other.read_dataset())
    place.write_about({"data": str(tmp_path)})
    assert "75 s    1.5" in said(place, other)
    for inside, name in ((place.root.parent, "new"), (place.root, ".")):
        monkeypatch.chdir(inside)
        here = RunFolder(Path(name))
        assert "75 s    1.5" in said(here, other), "also by a short path"
        assert here.own_run.root == one.root.resolve()
    one.write(one.recipe, b"[data]\nmulti_label = true\n")
    assert all(record.several for record in here.read_dataset())
    assert read_facts(here).recipe == one.read_recipe()


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one = made(tmp_path / "one", wrong=0)
    with pytest.raises(RecipeError, match=r"no name of a .csv or .html file: x.txt"):
        said(one, one, out=Path("x.txt"))
    other = made(tmp_path / "other", wrong=0)
    other.remove(other.predictions("test"))
    other.write_predictions("train", one.read_predictions("test"))
    with pytest.raises(RunError, match="no part that all of these were measured on"):
        said(one, other)
