"""The page tells what more images would bring, or why it cannot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from run_example import HOSTILE, ExampleRun

from saccade.report import write_report


def curve(*, told: bool) -> dict[str, Any]:
    forecast = {"images": 720, "more": 540, "value": 0.9, "low": 0.88, "high": 0.92, "told": told}
    return {
        "now": 0.8,
        "points": [{"images": n, "value": 0.7 + n / 2000, "low": 0.6, "high": 0.8} for n in (22, 90, 180)],
        "forecasts": [forecast],
        "told": forecast if told else None,
        "flat": False,
    }


def page(tmp_path: Path, found: dict[str, Any]) -> str:
    run = ExampleRun(tmp_path).write()
    run.write_insight("learning_curve", found)
    return write_report(run).read_text("utf-8")


def test_the_sentences_stand_there_with_the_curve(tmp_path: Path) -> None:
    classes = [
        {"label": "rose", "images": 45, "judged": 15, "sentence": "Nothing can be told of rose."},
        {"label": HOSTILE, "images": 45, "judged": 15, "sentence": f"More of {HOSTILE}.", **curve(told=True)},
    ]
    found = {
        "why_not": "", "images": 180, "judged": 60, "draws": 5, "interval": [0.7, 0.9],
        "overall": {"sentence": "About 540 more images.", **curve(told=True)}, "classes": classes,
    }  # fmt: skip
    shown = page(tmp_path, found)
    assert "About 540 more images." in shown
    assert 'id="more-axes_1"' in shown
    assert "PolyCollection" in shown or "FillBetween" in shown
    assert HOSTILE not in shown
    assert "More of &lt;img src=x" in shown
    unsure = page(tmp_path / "b", found | {"overall": {"sentence": "Not yet.", **curve(told=False)}})
    assert "No forecast is drawn" in unsure
    assert "PolyCollection" not in unsure
    assert "FillBetween" not in unsure


def test_why_nothing_was_measured(tmp_path: Path) -> None:
    shown = page(tmp_path, {"why_not": "50 training images: a curve needs 60"})
    section = re.search(r'<section id="more_data".*?</section>', shown, flags=re.S)
    assert section
    assert "Not measured: 50 training images: a curve needs 60." in section[0]
