"""Labels that look wrong on the page, and the page on which a person decides about them by keyboard."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from run_example import HOSTILE, ExampleRun

from saccade.audit.decisions import parse_decisions
from saccade.export.chromium import chromium_page, find_chromium
from saccade.report import write_report
from saccade.report.label_errors import write_decide_page

OTHERS = (HOSTILE, "rose", "daisy", "tulip")
ODD = '=odd, "name"\udcff.jpg'


def doubted(example: ExampleRun, rows: int) -> dict[str, Any]:
    """What the analysis says of the first training images; the second has a name that is hard to write."""
    shown = [
        {
            "path": ODD if number == 1 else example.path("train", number),
            "label": example.classes[number % 4],
            "suggested": HOSTILE if number % 4 != 2 else "rose",
            "others": [name for name in OTHERS if name != example.classes[number % 4]],
            "part": "train",
            "score": 0.9 - 0.1 * number,
            "self_confidence": 0.05,
            "distance_ratio": 1.3,
        }
        for number in range(rows)
    ]  # fmt: skip
    weights = {"self_confidence": 1.0, "distance": 2.0}
    return {
        "images": 180,
        "listed": 180,
        "doubted": rows,
        "pretrained": True,
        "weights": weights,
        "shown": shown,
    }


@pytest.fixture
def example(tmp_path: Path) -> ExampleRun:
    made = ExampleRun(tmp_path)
    made.write()
    audit = made.run.read_audit()
    told = {"severity": "info", "message": "decided", "remedy": "Nothing to do"}
    new_labels = {"labels": {"x.jpg": ["rose", "tulip"]}}
    audit["findings"] += [
        {**told, "kind": "relabelled", "paths": ["x.jpg"], "figure": new_labels},
        {**told, "kind": "dropped", "paths": ["train/0/broken.jpg"], "figure": {}},
        {**told, "kind": "parted", "paths": [], "figure": {"pairs": [[made.path("train", 0), ODD]]}},
    ]
    made.run.write_audit(audit)
    made.run.write_insight("label_errors", doubted(made, 3))
    return made


def pages(example: ExampleRun) -> tuple[str, str]:
    read = example.storage().read
    write_decide_page(example.run, read)
    report = write_report(example.run, read_image=read)
    return report.read_text("utf-8"), example.run.decide_page.read_text("utf-8")


def test_the_report_shows_doubted_labels_and_what_was_decided(example: ExampleRun) -> None:
    report, _ = pages(example)
    section = report.partition('id="label_errors"')[2].partition("</section>")[0]
    assert "For 3 of 180 images, of all parts, another class is more probable" in section
    assert 'href="decide.html"' in section
    assert re.search(r"1 with another label,\s+1 left out, 0 right as they stand", section)
    assert HOSTILE not in report
    assert "<script" not in report


def test_without_doubt_there_is_no_page_to_decide(example: ExampleRun) -> None:
    pages(example)
    example.run.write_insight("label_errors", doubted(example, 0))
    report, _ = write_report(example.run).read_text("utf-8"), write_decide_page(example.run, bytes)
    assert not example.run.decide_page.exists()
    assert "for each of 180 images, of all parts, the label is the most probable class" in report
    assert "decide.html" not in report


def test_the_page_runs_its_own_script_alone_and_names_are_text(example: ExampleRun) -> None:
    _, page = pages(example)
    ((data, script),) = re.findall(r'id="data">(.*?)</script>\n<script>(.*?)</script>', page, re.S)
    assert page.count("<script") == 2
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in page
    assert "<img src=x" not in page
    assert not re.search(r"https?:|innerHTML", page)
    held = json.loads(data)
    assert [row["path"] for row in held["shown"]][1] == ODD
    assert held["earlier"] == [
        ["x.jpg", "rose", "relabel", "tulip", ""],
        ["train/0/broken.jpg", "daisy", "drop", "", ""],
        [example.path("train", 0), example.classes[0], "not a duplicate", "", ODD],
    ]


def test_the_command_is_that_of_the_run_with_the_new_file(example: ExampleRun) -> None:
    typed = "saccade train photos --out runs/a-2 --lr 0.1 --data.decisions mine.csv --seed 3"
    example.run.update_record(command=tuple(typed.split()))
    command = "saccade train photos --out runs/a-3 --lr 0.1 --seed 3 --decisions decisions.csv"
    assert f"<code>{command}</code>" in pages(example)[1]
    example.run.update_record(command=())
    assert re.search(r"<code>saccade train \S+ --decisions decisions.csv</code>", pages(example)[1])


@pytest.mark.examples
def test_one_decides_by_keyboard_and_the_file_is_read_back(example: ExampleRun) -> None:
    if not find_chromium():
        pytest.skip("needs a Chromium on the PATH")
    pages(example)
    with chromium_page() as tab:
        tab.open(example.run.decide_page.absolute().as_uri())
        seen = "[...document.querySelectorAll('#images > li')].map((image) => !image.hidden)"
        told = "document.getElementById('told').textContent"
        assert tab.evaluate(seen) == [True, False, False]
        for key in ("k", "r", "d", "u", "ArrowLeft", "2"):
            tab.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key if len(key) == 1 else "")
        assert tab.evaluate("[...made].map(([n, { decision, label }]) => [n, decision, label])") == [
            [0, "keep", ""],
            [1, "relabel", "daisy"],
        ]
        assert tab.evaluate(told).startswith("2: relabelled as daisy. Image 3 of 3")
        tab.evaluate("document.getElementById('drop').click()")
        encoded = tab.evaluate(
            "bytes(asCsv()).arrayBuffer().then((all) => btoa(String.fromCharCode(...new Uint8Array(all))))"
        )
        tab.open(example.run.decide_page.absolute().as_uri())
        assert tab.evaluate("made.size") == 3, "a page that is opened again knows what was decided"
        assert tab.errors == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
    text = base64.b64decode(encoded).decode("utf-8", "surrogateescape")
    assert text.splitlines()[0] == "path,label,decision,new_label,other"
    assert len(list(csv.reader(io.StringIO(text)))) == 7
    decided = parse_decisions(text, where="decisions.csv")
    assert decided.apart == {frozenset((example.path("train", 0), ODD))}
    assert decided.kept == {example.path("train", 0)}
    assert {path: new.label for path, new in decided.relabelled.items()} == {ODD: "daisy", "x.jpg": "tulip"}
    assert decided.dropped == {example.path("train", 2), "train/0/broken.jpg"}
