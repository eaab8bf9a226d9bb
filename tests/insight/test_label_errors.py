"""The table of labels that look wrong: its columns are a contract for people and tools outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from saccade.insight.label_errors import label_errors
from saccade.insight.material import Material
from saccade.records import ImageRecord
from saccade.run_folder import RunFolder, read_csv

CLASSES = ("=daisy", "rose")


def material(folder: Path, *, kept: tuple[str, ...] = (), classes: tuple[str, ...] = CLASSES) -> Material:
    """Twenty images of two kinds in all parts; the first of each ten is under the wrong label."""
    random = np.random.default_rng(0)
    truth = np.repeat([0, 1], 10)
    labels = truth.copy()
    labels[[0, 10]] = [1, 0]
    parts = ["train", "train", "train", "validation", "test"] * 4
    records = tuple(
        ImageRecord(f"{number:02d}.jpg", CLASSES[label], part)
        for number, (label, part) in enumerate(zip(labels, parts, strict=True))
    )
    run = RunFolder(folder)
    run.write_audit({"findings": [{"kind": "kept", "paths": list(kept), "figure": {}}] if kept else []})
    features = (random.normal(size=(20, 6)) + 4 * np.eye(6)[truth]).astype(np.float32)
    return Material(
        run,
        *(SimpleNamespace(), SimpleNamespace()),
        records,
        features,
        labels,
        np.arange(20),
        SimpleNamespace(classes=classes),
        True,
        SimpleNamespace(),
    )  # type: ignore[arg-type]


def test_the_table_has_its_columns_and_all_parts_worst_first(tmp_path: Path) -> None:
    found = label_errors(material(tmp_path))
    table = tmp_path / "report" / "label_errors.csv"
    assert table.read_text().startswith("path,label,suggested,score,part,self_confidence,distance_ratio\n")
    rows = read_csv(table)
    scores = [float(row["score"]) for row in rows]
    assert {row["path"] for row in rows[:2]} == {"00.jpg", "10.jpg"}
    assert len(rows) == 20
    assert {row["part"] for row in rows} == {"train", "validation", "test"}
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] < 0.5 < scores[0] <= 1
    wrong = {row["path"]: row for row in rows}["00.jpg"]
    assert (wrong["label"], wrong["suggested"]) == ("rose", "'=daisy"), "no spreadsheet runs it as a formula"
    assert found is not None
    assert [row["path"] for row in found["shown"]] == [row["path"] for row in rows[: found["doubted"]]]
    assert found["shown"][0]["others"] == [found["shown"][0]["suggested"]]
    assert found["listed"] == 20


def test_what_a_person_called_right_is_never_doubted_again(tmp_path: Path) -> None:
    made = material(tmp_path, kept=("00.jpg",))
    found = label_errors(made)
    assert found is not None
    assert found["listed"] == 19
    assert "00.jpg" not in {row["path"] for row in read_csv(made.run.label_errors)}


def test_nothing_to_judge_leaves_no_table_behind(tmp_path: Path) -> None:
    made = material(tmp_path)
    label_errors(made)
    together = replace(made, groups=made.groups * 0)
    assert label_errors(together) is None
    assert not made.run.label_errors.exists()


def test_one_class_gives_no_occasion(tmp_path: Path) -> None:
    assert label_errors(material(tmp_path, classes=("rose",))) is None
