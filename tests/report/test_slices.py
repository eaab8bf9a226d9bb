"""The page shows slices that do worse than the rest, with pictures, or that there are none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from run_example import HOSTILE, ExampleRun

from saccade.report import write_report


def section(example: ExampleRun, found: list[dict[str, Any]]) -> str:
    run = example.write()
    run.write_insight("slices", {"part": "test", "images": 60, "tried": 31, "slices": found})
    page = write_report(run, read_image=example.storage().read).read_text("utf-8")
    shown = re.search(r'<section id="slices".*?</section>', page, flags=re.S)
    assert shown
    return shown[0]


def test_a_slice_has_its_accuracy_beside_the_rest_and_pictures(tmp_path: Path) -> None:
    example = ExampleRun(tmp_path)
    photo = {"path": example.path("test", 3), "label": "tulip", "predicted": HOSTILE, "confidence": 0.9}
    found = {
        "kind": "camera", "words": HOSTILE, "images": 12, "wrong": 6, "adjusted_p": 0.00312,
        "accuracy": [0.5, 0.25, 0.75], "rest": [0.9, 0.8, 0.95], "confidence": 0.871, "ece": 0.371,
        "mostly": {"label": "tulip", "share": 0.5},
        "examples": [{**photo, "right": False}],
    }  # fmt: skip
    shown = section(example, [found])
    assert "31 slices of the 60 test images were tried" in shown
    assert "50.0\u00a0% of 12 images right (25.0 \u2013 75.0), of the rest 90.0\u00a0%" in shown
    assert "p = 0.0031, corrected" in shown
    assert "87.1\u00a0% sure of these on average (ECE 0.371)" in shown
    assert "data:image/jpeg" in shown
    assert HOSTILE not in shown


def test_none_is_said(tmp_path: Path) -> None:
    assert "None does." in section(ExampleRun(tmp_path), [])
